package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// check runs a command line and compares exit code and output.
func check(t *testing.T, line string, variables map[string]string, wantCode int, wantOutput string) {
	t.Helper()
	var output, complaints bytes.Buffer
	env := environment{
		lookup:         func(name string) (string, bool) { value, ok := variables[name]; return value, ok },
		stdout:         &output,
		terminationLog: filepath.Join(t.TempDir(), "termination-log"),
	}
	code := execute(env, strings.Fields(line), &complaints)
	if code != wantCode || output.String() != wantOutput {
		t.Errorf("%q: exit %d, output %q, complaints %q; want exit %d, output %q",
			line, code, output.String(), complaints.String(), wantCode, wantOutput)
	}
}

func TestExitCodes(t *testing.T) {
	for line, want := range map[string]int{
		"exit 0": 0, "exit 7": 7, "exit 255": 255, "exit 256": 2, "exit -1": 2, "exit x": 2, "exit": 2,
		"": 2, "nonsense": 2, "sleep 0": 0, "sleep -1": 2, "sleep NaN": 2, "sleep": 2,
		"exit 0 -- exit 3 -- exit 4": 3, "exit 3 --": 3, "exit 0 --": 2, "read /does/not/exist": 1,
		"rank": 2, "rank 1": 2, "await": 2, "oom -5": 2, "write": 2, "term bye": 0,
	} {
		check(t, line, nil, want, "")
	}
}

func TestAFileIsReadAsWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "deep", "down", "file")
	check(t, "write "+path+" hello there -- read "+path, nil, 0, fmt.Sprintf("wrote %[1]s\nread %[1]s: hello there\n", path))
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Errorf("drafts are left behind: %v %v", entries, err)
	}
}

func TestAFileIsAwaited(t *testing.T) {
	path := filepath.Join(t.TempDir(), "go")
	if err := os.WriteFile(filepath.Join(filepath.Dir(path), "file"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	check(t, "await "+filepath.Join(filepath.Dir(path), "file", "below"), nil, 1, "")
	begin := time.Now()
	time.AfterFunc(2*awaitInterval, func() { os.WriteFile(path, nil, 0o644) })
	check(t, "await "+path, nil, 0, "found "+path+"\n")
	if waited := time.Since(begin); waited < 2*awaitInterval {
		t.Errorf("went on after %v", waited)
	}
}

func TestVariablesAndConnections(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	address := listener.Addr().String()
	check(t, "env GPUS -- connect "+address, map[string]string{"GPUS": "a,b"}, 0, "GPUS=a,b\nconnected to "+address+"\n")
	check(t, "env GPUS", nil, 1, "")
	check(t, "connect nowhere", nil, 2, "")
}

func TestTheTerminationMessageIsWritten(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	env := environment{terminationLog: log}
	if code := execute(env, []string{"term", "out", "of", "luck"}, os.Stderr); code != 0 {
		t.Fatalf("exit %d", code)
	}
	if text, err := os.ReadFile(log); err != nil || string(text) != "out of luck" {
		t.Errorf("%q, %v", text, err)
	}
}

func member(rank, size int, port string) map[string]string {
	return map[string]string{
		"NODE_RANK": strconv.Itoa(rank), "NNODES": strconv.Itoa(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
	}
}

// freePort returns a port that nobody listens on at this moment.
func freePort(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	return port
}

func TestAllRanksMeet(t *testing.T) {
	for _, size := range []int{1, 2, 8} {
		port := freePort(t)
		var group sync.WaitGroup
		// Highest rank first: rank 0 comes last and is waited for.
		for rank := size - 1; rank >= 0; rank-- {
			group.Go(func() {
				check(t, "rank", member(rank, size, port), 0,
					fmt.Sprintf("rank %d of %d met at 127.0.0.1:%s\n", rank, size, port))
			})
		}
		group.Wait()
	}
}

func TestNobodyMeetsBeforeAllHaveCome(t *testing.T) {
	port := freePort(t)
	gone := make(chan error, 2)
	ctx, cancel := context.WithTimeout(context.Background(), 400*time.Millisecond)
	defer cancel()
	go func() { gone <- host(ctx, gang{0, 3, "127.0.0.1", port}) }()
	go func() { gone <- join(ctx, gang{1, 3, "127.0.0.1", port}) }()
	for range 2 {
		if err := <-gone; err == nil {
			t.Error("a rank met although rank 2 never came")
		}
	}
	if ctx.Err() == nil {
		t.Error("gave up before its time")
	}
}

func TestGangsThatAreMixedUpFail(t *testing.T) {
	for name, greetings := range map[string][]string{
		"a rank twice":          {"rank 1 of 3\n", "rank 1 of 3\n"},
		"another size":          {"rank 1 of 4\n"},
		"a rank beyond":         {"rank 3 of 3\n"},
		"a second rank 0":       {"rank 0 of 3\n"},
		"twice after a scanner": {"GET / HTTP/1.1\n", "rank 2 of 3\n", "rank 2 of 3\n"},
	} {
		t.Run(name, func(t *testing.T) {
			port := freePort(t)
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			done := make(chan error, 1)
			go func() { done <- host(ctx, gang{0, 3, "127.0.0.1", port}) }()
			for _, greeting := range greetings {
				connection := dial(t, port)
				defer connection.Close()
				if _, err := connection.Write([]byte(greeting)); err != nil {
					t.Fatal(err)
				}
			}
			if err := <-done; err == nil || ctx.Err() != nil {
				t.Errorf("error %v, context %v", err, ctx.Err())
			}
		})
	}
}

func TestARankMayComeAgainAfterItsConnectionBroke(t *testing.T) {
	port := freePort(t)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- host(ctx, gang{0, 3, "127.0.0.1", port}) }()
	broken := dial(t, port)
	if _, err := broken.Write([]byte("rank 1 of 3\n")); err != nil {
		t.Fatal(err)
	}
	time.Sleep(50 * time.Millisecond)
	broken.Close()
	for rank := 1; rank <= 2; rank++ {
		go func() { _ = join(ctx, gang{rank, 3, "127.0.0.1", port}) }()
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// dial connects as soon as somebody listens.
func dial(t *testing.T, port string) net.Conn {
	t.Helper()
	for range 200 {
		if connection, err := net.Dial("tcp", "127.0.0.1:"+port); err == nil {
			return connection
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("nobody listens")
	return nil
}
