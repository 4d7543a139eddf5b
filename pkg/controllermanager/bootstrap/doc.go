// Package bootstrap lets machines join by bootstrap tokens: it signs the public cluster-info with every token that may,
// and deletes tokens whose time is over.
//
// Two controllers: a token, or the cluster-info, brings the one key of the signer, which makes all signatures anew; a
// token brings its own key to the cleaner, which comes back when the token ends. Neither keeps state.
package bootstrap
