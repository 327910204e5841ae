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

// crossShard refuses a statement whose keys belong to different shards.
func crossShard() *Refusal {
	return refuse(
		"a statement on rows of different shards is not supported",
		"Its keys belong to different shards, and only a plain SELECT, whose rows can be concatenated, runs on several.",
		"Use one statement for each shard key.",
	)
}

func tablesApart(command string) *Refusal {
	return refuse(command+" of tables that live on different shards is not supported", "A statement runs on one shard.", "Use one statement for each table.")
}
