package controllermanager

import (
	"fmt"

	nodev1 "k8s.io/api/node/v1"
	storagemigrationv1 "k8s.io/api/storagemigration/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// driveTrustBundle takes the published authority away, and waits for it.
func driveTrustBundle(s *space) {
	bundles := s.admin.CertificatesV1().ClusterTrustBundles()
	opts := metav1.ListOptions{FieldSelector: "spec.signerName=kubernetes.io/kube-apiserver-serving"}
	there := func() error {
		list, err := bundles.List(s.t.Context(), opts)
		if err == nil && len(list.Items) != 1 {
			err = fmt.Errorf("there are %d bundles", len(list.Items))
		}
		return err
	}
	s.wait("the authority", there)
	s.ok(bundles.DeleteCollection(s.t.Context(), metav1.DeleteOptions{}, opts))
	s.wait("the authority to be published again", there)
}

// driveMigration has a few objects stored anew. Of a kind that every drive has objects of it would be many writes: who dies after each takes
// as many lives, which on a busy machine is longer than a test waits.
func driveMigration(s *space) {
	for i := range 3 {
		name := fmt.Sprintf("%s-%d", s.ns, i)
		_, err := s.admin.NodeV1().RuntimeClasses().Create(s.t.Context(), &nodev1.RuntimeClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Handler: "run"}, metav1.CreateOptions{})
		s.ok(err)
	}
	migrations := s.admin.StoragemigrationV1().StorageVersionMigrations()
	_, err := migrations.Create(s.t.Context(), &storagemigrationv1.StorageVersionMigration{
		ObjectMeta: metav1.ObjectMeta{Name: s.ns}, Spec: storagemigrationv1.StorageVersionMigrationSpec{Resource: metav1.GroupResource{Group: "node.k8s.io", Resource: "runtimeclasses"}},
	}, metav1.CreateOptions{})
	s.ok(err)
	s.wait("the migration to succeed", func() error {
		m, err := migrations.Get(s.t.Context(), s.ns, metav1.GetOptions{})
		if err == nil && (!meta.IsStatusConditionTrue(m.Status.Conditions, string(storagemigrationv1.MigrationSucceeded)) || m.Status.ResourceVersion == "") {
			err = fmt.Errorf("%+v", m.Status)
		}
		return err
	})
}
