package proxy

import (
	"crypto/sha256"
	"sync"

	"github.com/tidemarkdb/tidemark/internal/wire"
)

// disguise is what makes users that do not exist look like those that do: to each name belong a salt and a number of
// iterations that stay, and the kind of secret that most users have. PostgreSQL does the same with the salt.
//
// Passwords in the clear need a salt too. They share the names' own, so that nothing changes for one when it appears or
// disappears, and nothing but verifiers tells their own salt.
type disguise struct {
	salt []byte // of all salts

	mu    sync.Mutex  // guards the fields below: how many secrets there are
	clear int         // in the clear
	md5   int         // hashes
	scram map[int]int // verifiers, by iterations
}

// maxKinds bounds how many numbers of iterations are told apart.
const maxKinds = 16

// newDisguise makes salts from what every proxy of a cluster should share, or else from what only this process knows.
func newDisguise(shared string, own []byte) *disguise {
	d := &disguise{salt: own, scram: map[int]int{}}
	if shared != "" {
		h := sha256.Sum256([]byte("tidemark salts\x00" + shared))
		d.salt = h[:]
	}
	return d
}

// saw counts a user's secret.
func (d *disguise) saw(s Secret) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case s.password != "":
		d.clear++
	case s.md5 != "":
		d.md5++
	case s.hasVerifier():
		if _, known := d.scram[s.verifier.Iterations]; known || len(d.scram) < maxKinds {
			d.scram[s.verifier.Iterations]++
		}
	}
}

// verifier stands for a user that does not exist, or has no secret that SCRAM can check. No password fits it.
func (d *disguise) verifier(user string) wire.Verifier {
	v := wire.MockVerifier(d.salt, user)
	d.mu.Lock()
	defer d.mu.Unlock()
	most := d.clear // which have the default, as v has
	for iterations, n := range d.scram {
		if iterations == wire.DefaultIterations {
			n += d.clear
		}
		if n > most || n == most && iterations > v.Iterations {
			most, v.Iterations = n, iterations
		}
	}
	return v
}

// fits is Secret.Fits. It takes as long as most verifiers do for all kinds of secrets and for none: a password in the clear or
// an MD5 hash is compared in next to no time, by which whoever asks could tell who exists.
func (d *disguise) fits(s Secret, user, password string) bool {
	if s.password == "" && s.md5 == "" && s.hasVerifier() {
		return s.Fits(user, password)
	}
	d.verifier(user).CheckPassword(password)
	return s.Fits(user, password)
}

// asksMD5 says whether such a user is asked for an MD5 hash where a rule's method is md5.
func (d *disguise) asksMD5() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	verifiers := 0
	for _, n := range d.scram {
		verifiers += n
	}
	return d.clear+d.md5 > verifiers
}

// complete gives a password in the clear the verifier that SCRAM needs. It costs about a millisecond.
func (d *disguise) complete(user string, s Secret) (Secret, error) {
	if s.password == "" || s.hasVerifier() {
		return s, nil
	}
	var err error
	s.verifier, err = wire.VerifierWithSalt(s.password, wire.MockVerifier(d.salt, user).Salt)
	return s, err
}
