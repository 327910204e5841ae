package config

import (
	"fmt"

	"github.com/tidemarkdb/tidemark/internal/wire"
	"github.com/tidemarkdb/tidemark/proxy"
)

// Proxy is what is served and to whom. Verifiers of clear passwords are made here, with a new salt each time.
func (c *Config) Proxy() (proxy.Config, error) {
	secure, err := c.ClientTLS()
	if err != nil {
		return proxy.Config{}, err
	}
	out := proxy.Config{
		Database: c.Database.Name, TLS: secure, RequireTLS: c.TLS != nil && c.TLS.Require,
		MaxClients: c.Clients.Max, LoginTimeout: c.Clients.LoginTimeout, MaxMessage: int(c.Clients.MaxMessage),
		Consistency: proxy.Consistency(c.Consistency.Default), WaitTimeout: c.Consistency.WaitTimeout, OnTimeout: proxy.OnTimeout(c.Consistency.OnTimeout),
	}
	for i, u := range c.Users {
		verifier, err := verifierOf(u)
		if err != nil {
			return proxy.Config{}, fmt.Errorf("%s: users[%d] (%s): %w", c.File, i, u.Name, err)
		}
		out.Users = append(out.Users, proxy.User{Name: u.Name, Verifier: verifier})
	}
	return out, nil
}

func verifierOf(u User) (wire.Verifier, error) {
	if !u.SCRAM.Empty() {
		return wire.ParseVerifier(u.SCRAM.Reveal())
	}
	return wire.NewVerifier(u.Password.Reveal())
}
