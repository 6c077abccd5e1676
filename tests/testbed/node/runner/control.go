package main

import (
	"bufio"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// Commands, one per connection, a line each way; the answer is "ok ..." or
// "error ...":
//
//	status         which programs run: "ok containerd=12 kubelet=0" (0 is down)
//	kill NAME      SIGKILL, and leave it down
//	stop NAME      SIGTERM, and leave it down
//	start NAME     start it if it is down
//	pause NAME     SIGSTOP
//	resume NAME    SIGCONT
//	run ARGV...    run a command inside the node: "ok" if it exits with 0; what it
//	               prints goes to the log of that name
//
// `kill` and `stop` answer when the process is gone. Containers outlive the
// kubelet and containerd, as they do on a machine.

// obey answers until the socket is closed, which only the end of the node does.
func (n *node) obey(control net.Listener) error {
	for {
		connection, err := control.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer connection.Close()
			line, err := bufio.NewReader(connection).ReadString('\n')
			if err != nil {
				return
			}
			answer, err := n.command(strings.Fields(line))
			if err != nil {
				fmt.Fprintf(connection, "error %v\n", err)
				return
			}
			fmt.Fprintf(connection, "ok %s\n", answer)
		}()
	}
}

func (n *node) command(words []string) (string, error) {
	if len(words) == 1 && words[0] == "status" {
		return n.status(), nil
	}
	if len(words) > 1 && words[0] == "run" {
		return "", n.run(words[1:])
	}
	if len(words) != 2 {
		return "", fmt.Errorf("want status, or a verb and a program")
	}
	n.mutex.Lock()
	one, ok := n.programs[words[1]]
	n.mutex.Unlock()
	if !ok {
		return "", fmt.Errorf("no program %q", words[1])
	}
	switch words[0] {
	case "kill":
		return "", n.end(one, syscall.SIGKILL)
	case "stop":
		return "", n.end(one, syscall.SIGTERM)
	case "start":
		n.mutex.Lock()
		defer n.mutex.Unlock()
		one.wanted = true
		if one.pid != 0 {
			return "", nil
		}
		return "", n.start(one)
	case "pause":
		return "", n.signal(one, syscall.SIGSTOP)
	case "resume":
		return "", n.signal(one, syscall.SIGCONT)
	}
	return "", fmt.Errorf("unknown verb %q", words[0])
}

func (n *node) run(argv []string) error {
	name := filepath.Base(argv[0])
	return n.boot(Process{Name: name, Argv: argv, Log: filepath.Join(n.logs, "run-"+name+".log"), Once: true})
}

func (n *node) status() string {
	n.mutex.Lock()
	defer n.mutex.Unlock()
	var words []string
	for name, one := range n.programs {
		words = append(words, fmt.Sprintf("%s=%d", name, one.pid))
	}
	slices.Sort(words)
	return strings.Join(words, " ")
}

// end makes a program go and stay away.
func (n *node) end(one *program, signal syscall.Signal) error {
	n.mutex.Lock()
	one.wanted = false
	pid, exited := one.pid, one.exited
	n.mutex.Unlock()
	if pid == 0 {
		return nil
	}
	if err := syscall.Kill(pid, signal); err != nil {
		return err
	}
	<-exited
	return nil
}

func (n *node) signal(one *program, signal syscall.Signal) error {
	n.mutex.Lock()
	defer n.mutex.Unlock()
	if one.pid == 0 {
		return fmt.Errorf("%s is down", one.process.Name)
	}
	return syscall.Kill(one.pid, signal)
}
