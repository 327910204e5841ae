package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidemarkdb/tidemark/internal/wire"
)

func TestSecretsNeverPrint(t *testing.T) {
	v, err := wire.NewVerifier("hunter2")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []Secret{PasswordSecret("hunter2"), VerifierSecret(v), mustParse(t, "md5900150983cd24fb0d6963f7d28e17f72")} {
		u := User{Name: "ann", Secret: s}
		text, err := json.Marshal(u)
		if err != nil {
			t.Fatal(err)
		}
		shown := fmt.Sprintf("%v %+v %#v %s %q %x", u, u, u, s, s, s) + string(text)
		for _, part := range []string{"hunter2", "68756e74657232", "900150983cd24fb0d6963f7d28e17f72", fmt.Sprintf("%x", v.StoredKey), "SHA-256$"} {
			if strings.Contains(shown, part) {
				t.Errorf("%s is shown in %s", part, shown)
			}
		}
	}
}

func mustParse(t *testing.T, text string) Secret {
	t.Helper()
	s, err := ParseSecret(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestParseSecret(t *testing.T) {
	for _, tt := range []struct{ text, kind string }{
		{"", "[none]"},
		{"pencil", "[password]"},
		{"md5", "[password]"},
		{"md5900150983CD24fb0d6963f7d28e17f72", "[password]"},
		{"md5900150983cd24fb0d6963f7d28e17f72", "[MD5 hash]"},
		{wire.MockVerifier(nil, "a").Reveal(), "[SCRAM verifier]"},
	} {
		if got := mustParse(t, tt.text); got.String() != tt.kind {
			t.Errorf("%q is %v, want %s", tt.text, got, tt.kind)
		}
	}
	if _, err := ParseSecret("SCRAM-SHA-256$x"); err == nil {
		t.Error("half a verifier was taken")
	}
	hash := mustParse(t, "md5"+md5Hex("pencilann"))
	if !hash.Fits("ann", "pencil") || hash.Fits("ann", "pen") || hash.Fits("bob", "pencil") || (Secret{}).Fits("ann", "") {
		t.Error("an MD5 hash fits the wrong password, or not the right one")
	}
}

// A name has the same salt whether its user does not exist, or has a password in the clear; and looks as most users do.
// A password sent in the clear is checked as slowly for every kind of secret as for users that do not exist.
func TestDisguiseTakesItsTime(t *testing.T) {
	d := newDisguise("", []byte("a"))
	slow := wire.MockVerifier(nil, "x")
	slow.Iterations = 200_000
	d.saw(VerifierSecret(slow))
	begun := time.Now()
	VerifierSecret(slow).Fits("ann", "pencil")
	least := time.Since(begun) / 20
	for _, s := range []Secret{{}, PasswordSecret("pencil"), mustParse(t, "md5900150983cd24fb0d6963f7d28e17f72"), VerifierSecret(slow)} {
		begun := time.Now()
		if d.fits(s, "ann", "wrong") {
			t.Errorf("%v: a wrong password fits", s)
		}
		if took := time.Since(begun); took < min(least, 5*time.Millisecond) {
			t.Errorf("%v: checked within %v", s, took)
		}
	}
	if !d.fits(PasswordSecret("pencil"), "ann", "pencil") || d.fits(PasswordSecret("pencil"), "ann", "") {
		t.Error("the right password does not fit, or none does")
	}
}

func TestDisguise(t *testing.T) {
	d, again := newDisguise("shared", []byte("a")), newDisguise("shared", []byte("b"))
	plain, err := d.complete("ann", PasswordSecret("pencil"))
	if err != nil {
		t.Fatal(err)
	}
	if string(plain.verifier.Salt) != string(d.verifier("ann").Salt) || string(plain.verifier.Salt) != string(again.verifier("ann").Salt) {
		t.Error("salts differ: between a password and nobody, or between two proxies of one secret")
	}
	if !plain.Fits("ann", "pencil") || !plain.verifier.CheckPassword("pencil") {
		t.Error("a password in the clear does not fit its own verifier")
	}
	if n := d.verifier("bob").Iterations; n != wire.DefaultIterations || d.asksMD5() {
		t.Errorf("before any user is known: %d iterations, MD5 %t", n, d.asksMD5())
	}
	dear := wire.MockVerifier(nil, "x")
	dear.Iterations = 10_000
	for range 2 {
		d.saw(VerifierSecret(dear))
	}
	d.saw(plain)
	if n := d.verifier("bob").Iterations; n != 10_000 || d.asksMD5() {
		t.Errorf("most users have 10,000: %d iterations, MD5 %t", n, d.asksMD5())
	}
	for range 3 {
		d.saw(mustParse(t, "md5900150983cd24fb0d6963f7d28e17f72"))
	}
	if !d.asksMD5() {
		t.Error("most users have an MD5 hash")
	}
}

// directory in bubble time: how long answers are kept, that many logins ask once, and that it stays bounded.
func TestDirectory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int32
		d := newDirectory(func(_ context.Context, user string) (string, bool, error) {
			asked.Add(1)
			time.Sleep(100 * time.Millisecond)
			switch user[0] {
			case 'u':
				return "SCRAM-SHA-256$4096:c2FsdA==$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", true, nil
			case 'e':
				return "", false, errors.New("down")
			}
			return "", false, nil
		}, newDisguise("", []byte("s")), time.Minute, 5*time.Second)
		find := func(user string, wantFound, wantErr bool, wantAsked int32) {
			t.Helper()
			_, found, err := d.find(user).answer(t.Context())
			if found != wantFound || (err != nil) != wantErr || asked.Load() != wantAsked {
				t.Errorf("%s: found %t, %v, asked %d times, want %d", user, found, err, asked.Load(), wantAsked)
			}
		}
		var all sync.WaitGroup
		for range 100 {
			all.Go(func() { _, _, _ = d.find("u1").answer(t.Context()) })
		}
		all.Wait()
		find("u1", true, false, 1)
		time.Sleep(6 * time.Second)
		find("u1", true, false, 2) // nobody has proven to be u1: it is no better known than nobody
		d.proven("u1")
		time.Sleep(50 * time.Second)
		find("u1", true, false, 2)
		d.failed("u1")
		find("u1", true, false, 3)
		d.failed("u1") // also when the answer is fresh: the password may have changed since
		find("u1", true, false, 4)
		d.failed("u1") // but not again and again
		find("u1", true, false, 4)
		find("n1", false, false, 5)
		find("n1", false, false, 5)
		d.failed("n1") // as for a user that exists
		find("n1", false, false, 6)
		d.failed("n1")
		find("n1", false, false, 6)
		time.Sleep(6 * time.Second)
		find("n1", false, false, 7)
		find("e1", false, true, 8)
		find("e1", false, true, 8)
		time.Sleep(2 * time.Second)
		find("e1", false, true, 9)

		gone, leave := context.WithCancel(t.Context())
		leave()
		if _, _, err := d.find("u2").answer(gone); !errors.Is(err, context.Canceled) {
			t.Errorf("a client that left: %v", err)
		}
		find("u2", true, false, 10) // its answer came for the next one

		d.mu.Lock()
		for i := range 2 * maxKnown {
			if len(d.entries) >= maxKnown {
				d.makeRoom(time.Now())
			}
			done := make(chan struct{})
			close(done)
			d.entries[fmt.Sprint("x", i)] = &directoryEntry{done: done, expires: time.Now().Add(time.Hour)}
		}
		if len(d.entries) > maxKnown {
			t.Errorf("%d entries", len(d.entries))
		}
		d.mu.Unlock()
	})
}
