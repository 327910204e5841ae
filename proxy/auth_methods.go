package proxy

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os/user"
	"strconv"

	"github.com/tidemarkdb/tidemark/internal/wire"
)

// bySCRAM runs SCRAM-SHA-256, bound to the TLS connection if the client can, or must. Users without a verifier run the same
// exchange against one that nothing fits. What it returns goes in front of AuthenticationOk.
func (l *login) bySCRAM(secret Secret, bound bool) ([]byte, error) {
	verifier, reason := secret.verifier, ""
	if !secret.hasVerifier() {
		verifier = l.live.doorkeeper.disguise.verifier(l.user)
		if !secret.empty() {
			reason = "the user's secret is an MD5 hash, which a rule of method scram-sha-256 cannot check; use md5, or store a SCRAM verifier"
		}
	}
	scram, err := wire.NewSCRAM(verifier)
	if err != nil {
		return nil, err
	}
	switch {
	case l.binding != nil:
		scram.OfferBinding(l.binding, bound)
	case bound:
		return nil, wire.Errorf(wire.InvalidAuthorizationSpecification, "channel binding is required, and the server's certificate does not allow it").
			WithHint("Certificates signed by Ed25519 have no channel binding; use one signed by RSA or ECDSA.")
	}
	if err := l.write(wire.AppendAuthenticationSASL(nil, scram.Mechanisms()...)); err != nil {
		return nil, err
	}
	body, err := l.message("SASL", saslLimit)
	if err != nil {
		return nil, err
	}
	initial, err := wire.DecodeSASLInitial(body)
	if err != nil {
		return nil, err
	}
	challenge, err := scram.First(initial)
	if err != nil {
		return nil, err
	}
	if err := l.write(wire.AppendAuthenticationSASLContinue(nil, challenge)); err != nil {
		return nil, err
	}
	if body, err = l.message("SASL", saslLimit); err != nil {
		return nil, err
	}
	final, err := scram.Final(body)
	if errors.Is(err, wire.ErrWrongPassword) {
		return nil, l.errPassword(secret, reason)
	}
	if err != nil {
		return nil, err
	}
	l.keys = scram.Keys()
	return wire.AppendAuthenticationSASLFinal(nil, final), nil
}

// byMD5 asks for md5(md5(password || user) || salt), where only hashes are stored and drivers know no SCRAM.
func (l *login) byMD5(secret Secret) error {
	var salt [4]byte
	if _, err := rand.Read(salt[:]); err != nil {
		return err
	}
	answer, err := l.askPassword(wire.AppendAuthenticationMD5Password(nil, salt))
	if err != nil {
		return err
	}
	hash, known := secret.md5Hash(l.user)
	if right := equal("md5"+md5Hex(hash+string(salt[:])), answer); !right || !known {
		return l.errPassword(secret, "")
	}
	return nil
}

// byPassword asks for the password itself.
func (l *login) byPassword(secret Secret) error {
	password, err := l.askPassword(wire.AppendAuthenticationCleartextPassword(nil))
	if err != nil {
		return err
	}
	fits := false // which takes a verifier's iterations, for whatever user
	l.await(func(ctx context.Context) {
		fits, err = checked(ctx, func() bool { return l.live.doorkeeper.disguise.fits(secret, l.user, password) })
	})
	if err != nil {
		return err
	}
	if !fits {
		reason := ""
		if secret.password == "" && secret.md5 == "" && secret.verifier.Costly() {
			reason = "the user's verifier has more iterations than are spent on checking a password that is sent; use a rule of method scram-sha-256"
		}
		return l.errPassword(secret, reason)
	}
	l.password = password
	return nil
}

// askPassword sends an authentication request and takes the PasswordMessage.
func (l *login) askPassword(request []byte) (string, error) {
	if err := l.write(request); err != nil {
		return "", err
	}
	body, err := l.message("password", wire.AuthMessageLimit)
	if err != nil {
		return "", err
	}
	password, err := wire.DecodePassword(body)
	if err != nil {
		return "", err
	}
	if len(password) == 0 {
		return "", errors.Join(wire.Errorf(wire.InvalidPassword, "empty password returned by client"), errNotProven)
	}
	return string(password), nil
}

// byCertificate looks at the certificate that TLS has verified already.
func (l *login) byCertificate(by CertName) error {
	if l.tls == nil || len(l.tls.VerifiedChains) == 0 {
		return wire.Errorf(wire.InvalidAuthorizationSpecification, "connection requires a valid client certificate").
			WithHint("Connect with sslcert and sslkey.")
	}
	if !by.named(l.tls.VerifiedChains[0][0], l.user) {
		return wire.Errorf(wire.InvalidAuthorizationSpecification, "certificate authentication failed for user \"%s\"", l.user).
			WithHint("The certificate names another user.")
	}
	return nil
}

// byPeer asks the system who is at the other end of the Unix socket.
func (l *login) byPeer() error {
	id, err := l.conn.PeerUID()
	var peer *user.User
	if err == nil {
		l.await(func(context.Context) { peer, err = user.LookupId(strconv.FormatUint(uint64(id), 10)) })
	}
	if err == nil && peer.Username == l.user {
		return nil
	}
	if err == nil {
		err = fmt.Errorf("the system's user is %q", peer.Username)
	}
	return errors.Join(wire.Errorf(wire.InvalidAuthorizationSpecification, "peer authentication failed for user \"%s\"", l.user).
		WithHint("The system must know the client's process by the name of that user."), err)
}
