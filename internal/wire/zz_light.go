package wire

func DeriveForBench(password string, v Verifier) *ClientKeys {
	k, err := deriveKeys(password, v.Salt, v.Iterations)
	if err != nil {
		panic(err)
	}
	return &k
}
