package testcontainers

import "context"

// EngineAnswers reports whether Start would take Docker.
func EngineAnswers(ctx context.Context) bool { return dockerConfigured() && askEngine(ctx) == nil }
