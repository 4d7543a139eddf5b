package defaults

import certificatesv1 "k8s.io/api/certificates/v1"

// PodCertificateRequest fills in how long a certificate may live: a day.
func PodCertificateRequest(r *certificatesv1.PodCertificateRequest) {
	if r.Spec.MaxExpirationSeconds == nil {
		r.Spec.MaxExpirationSeconds = new(int32(86400))
	}
}
