package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

// The rendezvous of a gang, as a distributed training job does it:
//
//	rank 0          listens on MASTER_PORT
//	rank R          resolves MASTER_ADDR, connects, says "rank R of N\n"
//	rank 0          when all N-1 have said so, answers each "met\n"
//	every rank      prints "rank R of N met at ADDR" and goes on
//
// It holds that nobody prints before everybody has arrived. A rank that says
// another N, or a rank that comes twice, fails the rendezvous for all: two gangs
// have been mixed up.

const (
	meetTimeout     = 120 * time.Second
	greetingTimeout = 5 * time.Second
	retryInterval   = 100 * time.Millisecond
	maxRanks        = 1 << 16
)

// gang is what the environment of a member says about it.
type gang struct {
	rank, size    int
	address, port string
}

func (g gang) endpoint() string { return net.JoinHostPort(g.address, g.port) }

func gangOf(lookup func(string) (string, bool)) (gang, error) {
	var g gang
	var err error
	if g.size, err = count(lookup, "NNODES", 1, maxRanks); err != nil {
		return g, err
	}
	if g.rank, err = count(lookup, "NODE_RANK", 0, g.size-1); err != nil {
		return g, err
	}
	port, err := count(lookup, "MASTER_PORT", 1, 65535)
	if err != nil {
		return g, err
	}
	g.port = strconv.Itoa(port)
	address, ok := lookup("MASTER_ADDR")
	if !ok || address == "" {
		return g, usageError("MASTER_ADDR is not set")
	}
	g.address = address
	return g, nil
}

func count(lookup func(string) (string, bool), name string, least, most int) (int, error) {
	text, ok := lookup(name)
	if !ok {
		return 0, usageError("%s is not set", name)
	}
	value, err := strconv.Atoi(text)
	if err != nil || value < least || value > most {
		return 0, usageError("%s %q is not a number of %d to %d", name, text, least, most)
	}
	return value, nil
}

func runRank(env environment, args []string) error {
	if len(args) != 0 {
		return usageError("takes no argument; it reads NODE_RANK, NNODES, MASTER_ADDR, MASTER_PORT")
	}
	g, err := gangOf(env.lookup)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), meetTimeout)
	defer cancel()
	meet := join
	if g.rank == 0 {
		meet = host
	}
	if err := meet(ctx, g); err != nil {
		return fmt.Errorf("rank %d of %d: %w", g.rank, g.size, err)
	}
	fmt.Fprintf(env.stdout, "rank %d of %d met at %s\n", g.rank, g.size, g.endpoint())
	return nil
}

// host is rank 0: it waits for all others, then releases them.
func host(ctx context.Context, g gang) error {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", ":"+g.port)
	if err != nil {
		return err
	}
	defer listener.Close()
	stop := context.AfterFunc(ctx, func() { listener.Close() })
	defer stop()
	members := make(map[int]net.Conn, g.size)
	defer func() {
		for _, member := range members {
			member.Close()
		}
	}()
	for len(members) < g.size-1 {
		connection, err := listener.Accept()
		if err != nil {
			return fmt.Errorf("%d of %d others came: %w", len(members), g.size-1, err)
		}
		if err := admit(members, connection, g.size); err != nil {
			connection.Close()
			return err
		}
	}
	for rank, member := range members {
		if _, err := fmt.Fprintln(member, "met"); err != nil {
			return fmt.Errorf("rank %d left: %w", rank, err)
		}
	}
	return nil
}

// admit reads a greeting and adds the connection to the members. A connection
// that says something else is a probe: it is closed and forgotten. A rank may
// come again after its connection broke, never beside it.
func admit(members map[int]net.Conn, connection net.Conn, size int) error {
	var rank, theirs int
	line, err := readLine(connection)
	if err == nil {
		_, err = fmt.Sscanf(line, "rank %d of %d\n", &rank, &theirs)
	}
	if err != nil {
		connection.Close()
		return nil
	}
	if theirs != size || rank < 1 || rank >= size {
		return fmt.Errorf("%q came to rank 0 of %d", strings.TrimSpace(line), size)
	}
	if former := members[rank]; former != nil {
		if alive(former) {
			return fmt.Errorf("rank %d came twice", rank)
		}
		former.Close()
	}
	members[rank] = connection
	return nil
}

func readLine(connection net.Conn) (string, error) {
	if err := connection.SetReadDeadline(time.Now().Add(greetingTimeout)); err != nil {
		return "", err
	}
	return bufio.NewReader(connection).ReadString('\n')
}

// alive tells a silent connection from a closed one.
func alive(connection net.Conn) bool {
	if err := connection.SetReadDeadline(time.Now().Add(time.Millisecond)); err != nil {
		return false
	}
	_, err := connection.Read(make([]byte, 1))
	return errors.Is(err, os.ErrDeadlineExceeded)
}

// join is every other rank. Rank 0 may not be there yet, nor its name in DNS,
// and a connection may be cut before the answer: all of it is tried again.
func join(ctx context.Context, g gang) error {
	var last error
	for ctx.Err() == nil {
		if last = attempt(ctx, g); last == nil {
			return nil
		}
		select {
		case <-ctx.Done():
		case <-time.After(retryInterval):
		}
	}
	return fmt.Errorf("never met at %s: %w", g.endpoint(), last)
}

func attempt(ctx context.Context, g gang) error {
	dialer := net.Dialer{Timeout: 3 * time.Second}
	connection, err := dialer.DialContext(ctx, "tcp", g.endpoint())
	if err != nil {
		return err
	}
	defer connection.Close()
	stop := context.AfterFunc(ctx, func() { connection.Close() })
	defer stop()
	if _, err := fmt.Fprintf(connection, "rank %d of %d\n", g.rank, g.size); err != nil {
		return err
	}
	answer, err := bufio.NewReader(connection).ReadString('\n')
	if err != nil {
		return err
	}
	if answer != "met\n" {
		return fmt.Errorf("unexpected answer %q", answer)
	}
	return nil
}
