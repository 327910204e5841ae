//go:build race

package loop

// raceDetector says that allocations and memory are not what they are otherwise.
const raceDetector = true
