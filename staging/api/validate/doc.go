// Package validate answers what is wrong with an object, one file per noun: Kind for an object by itself, KindUpdate for
// one that takes the place of another.
//
// Objects come defaulted. The functions change nothing and keep no state, so any number may run at once. Field paths,
// reasons and words are upstream's, as clients show and compare them.
package validate
