// Command canned stands between a pooler and a PostgreSQL server, and answers one statement itself: what comes before the
// first of them (the login, the pooler's own questions) and everything else passes through. Its answers are bytes that were
// made in advance, sent by the thousand in one write, so that it takes next to no processor time: what is measured then is how
// many messages the pooler can carry. It is no server, and no claim about one.
//
//	canned -listen 127.0.0.1:7000 -server 127.0.0.1:5432 -statement 'SELECT 1 AS canned'
package main

import (
	"flag"
	"fmt"
	"net"
	"os"
)

func main() {
	listen := flag.String("listen", "", "host and port to listen on")
	server := flag.String("server", "", "host and port of the PostgreSQL server behind it")
	statement := flag.String("statement", "", "what it answers itself: by one row of one column, int4, whose value is 1")
	flag.Parse()
	fmt.Fprintln(os.Stderr, "canned:", serve(*listen, *server, *statement))
	os.Exit(1)
}

// serve ends with an error only.
func serve(listen, server, statement string) error {
	ln, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	for {
		c, err := ln.Accept()
		if err != nil {
			return err
		}
		go func() { // as long as the pooler keeps the connection, at most as long as the process
			if err := relay(c, server, statement); err != nil {
				fmt.Fprintln(os.Stderr, "canned:", err)
			}
		}()
	}
}
