package config

import (
	"fmt"

	"github.com/tidemarkdb/tidemark/internal/wire"
	"github.com/tidemarkdb/tidemark/proxy"
)

// Proxy is what is served and to whom.
func (c *Config) Proxy() (proxy.Config, error) {
	secure, err := c.ClientTLS(c.Warn)
	if err != nil {
		return proxy.Config{}, err
	}
	out := proxy.Config{
		MaxClientsOf: map[string]int{},
		Database:     c.Database.Name, TLS: secure, RequireTLS: c.TLS != nil && c.TLS.Require,
		Admins: c.Admin.Users, StatsUsers: c.Admin.StatsUsers,
		MaxClients: c.Clients.Max, MaxLogins: c.Clients.MaxLogins, Rules: c.Auth.rules(), LookupTTL: c.Auth.CacheTime,
		LookupAbsent: c.Auth.AbsentTime, MockSecret: c.Auth.MockSecret.Reveal(), LoginAs: c.Database.Login, LoginTimeout: c.Clients.LoginTimeout, MaxMessage: int(c.Clients.MaxMessage), MessageMemory: int(c.Clients.MessageMemory), MessageTimeout: c.Clients.MessageTimeout, MaxNotifications: int(c.Clients.MaxNotifications),
		Consistency: proxy.Consistency(c.Consistency.Default), WaitTimeout: c.Consistency.WaitTimeout, OnTimeout: proxy.OnTimeout(c.Consistency.OnTimeout),
	}
	for i, u := range c.Users {
		if u.MaxClients > 0 {
			out.MaxClientsOf[u.Name] = u.MaxClients
		}
		secret, err := secretOf(u)
		if err != nil {
			return proxy.Config{}, fmt.Errorf("%s: users[%d] (%s): %w", c.File, i, u.Name, err)
		}
		out.Users = append(out.Users, proxy.User{Name: u.Name, Secret: secret})
	}
	return out, nil
}

func secretOf(u User) (proxy.Secret, error) {
	switch {
	case !u.MD5.Empty():
		return proxy.ParseMD5(u.MD5.Reveal())
	case !u.SCRAM.Empty():
		v, err := wire.ParseVerifier(u.SCRAM.Reveal())
		return proxy.VerifierSecret(v), err
	}
	return proxy.PasswordSecret(u.Password.Reveal()), nil
}
