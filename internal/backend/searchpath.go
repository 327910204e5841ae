package backend

// SearchPaths has server connections that are opened from here on begin with the search_path that of says of who logs in, and not with
// what the servers have for that role by then: whoever looks names up beside the servers has to know it.
func (b *Backend) SearchPaths(of func(user string) string) { b.paths.Store(&of) }

// searchPath is what a connection of user begins with; empty: what the server says.
func (b *Backend) searchPath(user string) string {
	if of := b.paths.Load(); of != nil {
		return (*of)(user)
	}
	return ""
}
