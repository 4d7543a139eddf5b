package runtime

import "context"

type accountKey struct{}

// As answers a context whose requests are made as a service account of kube-system, if the transport is told to: the
// runtime puts every controller's own into what it calls, so that no controller can do more than its role says.
func As(ctx context.Context, account string) context.Context {
	return context.WithValue(ctx, accountKey{}, account)
}

// AccountOf answers as whom requests of a context are to be made, "" for the daemon itself.
func AccountOf(ctx context.Context) string {
	account, _ := ctx.Value(accountKey{}).(string)
	return account
}
