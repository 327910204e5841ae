//go:build !race

package proxy_test

// raceDetector says that allocations and memory are not what they are otherwise.
const raceDetector = false
