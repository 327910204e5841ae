package replication

const workerEnv = "TIDEMARK_TEST_CAPTURE"

func workerMain() {}
