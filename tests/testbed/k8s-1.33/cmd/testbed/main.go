// Command testbed is the Kubernetes control plane of the oldest version that
// FlowForge supports, and etcd, in one binary:
//
//	testbed etcd|kube-apiserver|kube-controller-manager|kube-scheduler|kubectl [flags]
//
// It is the sibling of the command of the same name one directory up, without
// the node components.
package main

import (
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
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
)

// commands maps each Kubernetes component to the constructor of its upstream
// command. etcd is not among them: it parses os.Args itself.
var commands = map[string]func() *cobra.Command{
	"kube-apiserver":          func() *cobra.Command { return apiserver.NewAPIServerCommand() },
	"kube-controller-manager": func() *cobra.Command { return controllermanager.NewControllerManagerCommand() },
	"kube-scheduler":          func() *cobra.Command { return scheduler.NewSchedulerCommand() },
	"kubectl":                 func() *cobra.Command { return kubectl.NewDefaultKubectlCommand() },
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
