package authn

import (
	"os"
	"path/filepath"
	"testing"

	"k8s.io/apiserver/pkg/apis/apiserver/validation"
	authncel "k8s.io/apiserver/pkg/authentication/cel"
)

// FuzzConfiguration reads anything as an AuthenticationConfiguration and as a file of tokens: it is refused, or is one. The
// issuers are looked at, and not asked.
func FuzzConfiguration(f *testing.F) {
	const head = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\n"
	const issuer = head + "jwt:\n- issuer: {url: 'https://127.0.0.1:1', audiences: [a]}\n  claimMappings: "
	for _, s := range []string{
		"", "a: [", head, head + "anonymous: {enabled: true, conditions: [{path: /livez}]}\n", head + "anonymous: {enabled: false, conditions: [{path: /livez}]}\n", issuer + "{username: {claim: sub, prefix: ''}}\n",
		issuer + "{username: {expression: 'claims.sub + \":\" + claims.a'}, groups: {expression: claims.g}, uid: {claim: u}, extra: [{key: x.io/y, valueExpression: claims.z}]}\n  claimValidationRules: [{expression: 'claims.hd == \"a\"', message: m}, {claim: c, requiredValue: v}]\n  userValidationRules: [{expression: '!user.username.startsWith(\"system:\")'}]\n",
		issuer + "{username: {claim: sub, expression: claims.sub}}\n", issuer + "{username: {expression: 'claims.'}}\n", "token,user,uid,\"a,b\"\n", "t,u\n", `"`, "apiVersion: apiserver.config.k8s.io/v1beta1\nkind: AuthenticationConfiguration\njwt: [{issuer: {url: 'http://x', discoveryURL: 'https://y', audienceMatchPolicy: z}}]\n",
	} {
		f.Add([]byte(s))
	}
	compiler := authncel.NewDefaultCompiler()
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, data []byte) {
		file := filepath.Join(dir, "file")
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if known, err := readStatic(file); err == nil && known[""] != nil {
			t.Errorf("%q lets in who has no token", data)
		}
		conf, err := decode(data)
		if err != nil {
			return
		}
		if len(conf.JWT) > 0 {
			_ = validation.ValidateAuthenticationConfiguration(compiler, conf, nil).ToAggregate() // what is left to New then is to ask them
			return
		}
		if a, err := New(Config{File: file}); err == nil {
			_ = a.anonymous("/livez")
			a.trusted.now.Load().end()
		}
	})
}
