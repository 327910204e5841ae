package router

import "fmt"

// notSupported is SQLSTATE feature_not_supported.
const notSupported = "0A000"

// refuse makes the refusal of a feature: what is not supported, why, and what to do instead.
func refuse(message, detail, hint string) *Refusal {
	return &Refusal{Code: notSupported, Message: message, Detail: detail, Hint: hint}
}

const hintKey = "Add a condition that the key equals a constant or a parameter, such as %s = 42."

func noKey(verb, table, column string, shards int) *Refusal {
	return refuse(
		fmt.Sprintf("%s a sharded table without its key is not supported", verb),
		fmt.Sprintf("Table %s is split by %s over %d shards, and no condition of the statement confines it to one shard; a write that touches several shards cannot be atomic here.", table, column, shards),
		fmt.Sprintf(hintKey, column),
	)
}

func crossShard(what string) *Refusal {
	return refuse(
		what+" on different shards are not supported",
		"They would be touched by one statement, and it runs on one shard, unless it is a plain SELECT whose rows can be concatenated.",
		"Use one statement for each.",
	)
}
