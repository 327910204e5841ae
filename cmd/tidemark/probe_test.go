package main

import (
	"strings"
	"testing"
)

func TestRedisFindings(t *testing.T) {
	for _, test := range []struct{ info, detail, problem string }{
		{"redis_version:7.0.15\r\nmaxmemory:0\r\nmaxmemory_policy:noeviction\r\naof_enabled:1\r\n", "version 7.0.15", ""},
		{"redis_version:7.0.15\r\nmaxmemory:0\r\nmaxmemory_policy:allkeys-lru\r\naof_enabled:0\r\n", "appendonly yes", ""},
		{"redis_version:7.0.15\r\nmaxmemory:1048576\r\nmaxmemory_policy:allkeys-lfu\r\naof_enabled:1\r\n", "", "allkeys-lfu"},
		{"", "it answers", ""},
	} {
		detail, err := redisFindings(test.info)
		if !strings.Contains(detail, test.detail) || (err != nil) != (test.problem != "") || err != nil && !strings.Contains(err.Error(), test.problem) {
			t.Errorf("%q: %q, %v", test.info, detail, err)
		}
	}
}
