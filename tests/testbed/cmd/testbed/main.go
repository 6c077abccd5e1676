// Command testbed is every Kubernetes control-plane and node component that the
// tests need, in one binary:
//
//	testbed etcd|kube-apiserver|kube-controller-manager|kube-scheduler|kubelet|node-kubelet|kube-proxy|kubectl|oracle [flags]
//
// One binary is linked once and cached once, and its pages are shared by all
// the processes of a testbed. Each subcommand is the unmodified upstream
// command: it takes upstream's flags and nothing else. The exceptions are
// node-kubelet, the kubelet on a described machine, and oracle, kube-scheduler's
// plugins as a filter of text. A subcommand's command tree is built only when it
// is called, because building one registers flags and reads the environment.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	_ "time/tzdata" // CronJob time zones

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"          // --logging-format=json
	_ "k8s.io/component-base/metrics/prometheus/clientgo" // client metrics
	_ "k8s.io/component-base/metrics/prometheus/version"  // version metric
	kubectl "k8s.io/kubectl/pkg/cmd"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"

	"flowforge.dev/testbed/node"
	"flowforge.dev/testbed/oracle"
)

// commands maps each Kubernetes component to the constructor of its upstream
// command. etcd is not among them: it parses os.Args itself.
var commands = map[string]func() *cobra.Command{
	"kube-apiserver":          func() *cobra.Command { return apiserver.NewAPIServerCommand() },
	"kube-controller-manager": func() *cobra.Command { return controllermanager.NewControllerManagerCommand() },
	"kube-proxy":              func() *cobra.Command { return proxy.NewProxyCommand() },
	"kube-scheduler":          func() *cobra.Command { return scheduler.NewSchedulerCommand() },
	"kubectl":                 func() *cobra.Command { return kubectl.NewDefaultKubectlCommand() },
	"kubelet":                 func() *cobra.Command { return kubelet.NewKubeletCommand(context.Background()) },
	"node-kubelet":            node.NewKubeletCommand,
	"oracle":                  oracle.NewCommand,
}

func main() {
	name, args := component(os.Args)
	if name == "etcd" {
		etcdmain.Main(args)
		return
	}
	construct, ok := commands[name]
	if !ok {
		fmt.Fprintf(os.Stderr, "testbed: unknown component %q, want one of %s\n", name, strings.Join(names(), ", "))
		os.Exit(2)
	}
	os.Args = args
	os.Exit(cli.Run(construct()))
}

// component returns the component asked for and its argument vector. The binary
// answers to its own name (a link called kubectl is kubectl) or to its first
// argument.
func component(args []string) (string, []string) {
	own := filepath.Base(args[0])
	if _, ok := commands[own]; ok || own == "etcd" {
		return own, args
	}
	if len(args) < 2 {
		return "", nil
	}
	return args[1], args[1:]
}

func names() []string {
	all := []string{"etcd"}
	for name := range commands {
		all = append(all, name)
	}
	slices.Sort(all)
	return all
}
