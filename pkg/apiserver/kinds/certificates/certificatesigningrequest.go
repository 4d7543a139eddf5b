package certificates

import (
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

// CertificateSigningRequest is the row of certificatesigningrequests. Who asks is written by the server, the approval
// and the certificate only through their own subresources.
func CertificateSigningRequest() *kind.Def {
	return kind.Row(kind.Def{
		Kind: "CertificateSigningRequest", Resource: "certificatesigningrequests", ShortNames: []string{"csr"},
		Prepare: kind.On(func(op *kind.Op, c, old *certificatesv1.CertificateSigningRequest) {
			if old != nil {
				c.Spec = old.Spec
				return
			}
			c.Spec.Username, c.Spec.UID, c.Spec.Groups, c.Spec.Extra = "", "", nil, nil
			if op.User == nil {
				return
			}
			c.Spec.Username, c.Spec.UID, c.Spec.Groups = op.User.GetName(), op.User.GetUID(), op.User.GetGroups()
			for k, v := range op.User.GetExtra() {
				if c.Spec.Extra == nil {
					c.Spec.Extra = map[string]certificatesv1.ExtraValue{}
				}
				c.Spec.Extra[k] = v
			}
		}),
		Check:      kind.Ask(check),
		FieldNames: []string{"spec.signerName"},
		Fields: kind.Of(func(c *certificatesv1.CertificateSigningRequest) map[string]string {
			return map[string]string{"spec.signerName": c.Spec.SignerName}
		}),
		Columns: kind.Columns("Name Age SignerName Requestor RequestedDuration Condition"),
		Row: kind.Of(func(c *certificatesv1.CertificateSigningRequest) []any {
			asked := "<none>"
			if c.Spec.ExpirationSeconds != nil {
				asked = duration.HumanDuration(time.Duration(*c.Spec.ExpirationSeconds) * time.Second)
			}
			return []any{c.Name, kind.Age(c.CreationTimestamp), kind.None(c.Spec.SignerName), c.Spec.Username, asked, condition(c)}
		}),
		Subs: []kind.Sub{
			{Name: "approval", Aspect: &kind.Rules{
				Prepare: kind.On(func(_ *kind.Op, c, old *certificatesv1.CertificateSigningRequest) {
					c.Spec = old.Spec
					c.Status.Certificate = old.Status.Certificate
					stamp(c, old)
				}),
				Check: kind.Ask(func(_ *kind.Op, c, old *certificatesv1.CertificateSigningRequest) field.ErrorList {
					return checkChange(c, old, true)
				}),
			}},
			{Name: "status", Aspect: &kind.Rules{
				Prepare: kind.On(func(_ *kind.Op, c, old *certificatesv1.CertificateSigningRequest) {
					c.Spec = old.Spec
					stamp(c, old)
				}),
				Check: kind.Ask(func(_ *kind.Op, c, old *certificatesv1.CertificateSigningRequest) field.ErrorList {
					return checkChange(c, old, false)
				}),
			}},
		},
	}, kind.In[certificatesv1.CertificateSigningRequest, certificatesv1.CertificateSigningRequestList](certificatesv1.SchemeGroupVersion, nil))
}

// stamp dates the conditions that are new.
func stamp(c, old *certificatesv1.CertificateSigningRequest) {
	now := metav1.Now()
	for i := range c.Status.Conditions {
		n := &c.Status.Conditions[i]
		for _, o := range old.Status.Conditions {
			if o.Type == n.Type && o.Status == n.Status && n.LastTransitionTime.IsZero() {
				n.LastTransitionTime = o.LastTransitionTime
			}
		}
		if n.LastTransitionTime.IsZero() {
			n.LastTransitionTime = now
		}
		if n.LastUpdateTime.IsZero() {
			n.LastUpdateTime = now
		}
	}
}

func condition(c *certificatesv1.CertificateSigningRequest) string {
	var approved, denied, failed bool
	for _, n := range c.Status.Conditions {
		approved = approved || n.Type == certificatesv1.CertificateApproved
		denied = denied || n.Type == certificatesv1.CertificateDenied
		failed = failed || n.Type == certificatesv1.CertificateFailed
	}
	s := "Pending"
	switch {
	case denied:
		s = "Denied"
	case approved:
		s = "Approved"
	}
	if failed {
		s += ",Failed"
	}
	if len(c.Status.Certificate) > 0 {
		s += ",Issued"
	}
	return s
}
