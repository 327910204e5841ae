package backend

import "hash/maphash"

// OfServer says whether a setting that servers report is about the server and not about a session: no statement changes it, and
// servers of one cluster may differ in it.
func OfServer(name string) bool {
	switch name {
	case "in_hot_standby", "integer_datetimes", "server_encoding", "server_version":
		return true
	}
	return false
}

// ReportedPrint is a fingerprint of what a server has reported of a session: equal ones mean equal values. What is of the
// server does not count.
func ReportedPrint(params map[string]string) uint64 {
	sum := uint64(0)
	for name, value := range params {
		sum += printOf(name, value)
	}
	return sum
}

// printOf is one setting's part in the sum, in which the order makes no difference.
func printOf(name, value string) uint64 {
	if OfServer(name) {
		return 0
	}
	var h maphash.Hash
	h.SetSeed(reportedSeed)
	_, _ = h.WriteString(name) // it cannot fail
	_ = h.WriteByte(0)
	_, _ = h.WriteString(value)
	return h.Sum64()
}

var reportedSeed = maphash.MakeSeed()
