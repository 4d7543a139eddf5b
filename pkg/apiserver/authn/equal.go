package authn

import "crypto/subtle"

// equal compares secrets without telling by its time where they differ.
func equal(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }
