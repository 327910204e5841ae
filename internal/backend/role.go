package backend

import "fmt"

// Role is what an endpoint is to its shard.
type Role uint8

// Roles. RoleAuto is for the configuration, and for an endpoint that has not been asked yet.
const (
	RoleAuto Role = iota
	RolePrimary
	RoleReplica
)

// ParseRole reads "auto" (or ""), "primary" or "replica".
func ParseRole(s string) (Role, error) {
	switch s {
	case "", "auto":
		return RoleAuto, nil
	case "primary":
		return RolePrimary, nil
	case "replica":
		return RoleReplica, nil
	}
	return RoleAuto, fmt.Errorf("role %q: want auto, primary or replica", s)
}

func (r Role) String() string {
	switch r {
	case RolePrimary:
		return "primary"
	case RoleReplica:
		return "replica"
	}
	return "auto"
}

// Access is what a statement will do.
type Access uint8

// Accesses.
const (
	Read  Access = iota // may run on a replica
	Write               // needs the primary
)

func (a Access) String() string {
	if a == Write {
		return "write"
	}
	return "read"
}
