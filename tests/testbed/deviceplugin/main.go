// Command deviceplugin gives one kubelet devices that do not exist.
//
//	deviceplugin -dir KUBELET-ROOT/device-plugins -resource nvidia.com/gpu -node NAME -count 8 -numa 2
//
// It speaks the kubelet's device plugin API (v1beta1): the kubelet counts,
// assigns, and refuses pods by these devices exactly as by real ones, NUMA
// affinity included; only containers find no device file. Devices are spread
// over the NUMA nodes in runs of equal length: of 8 on 2, the first 4 are on
// node 0.
//
// Every line of the file named by -unhealthy is the index of a broken device;
// the file is read again when it changes, and need not exist.
//
// The plugin follows the kubelet: when a new one has come up (it empties the
// folder of sockets), it serves and registers anew.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	var options options
	flag.StringVar(&options.dir, "dir", "/var/lib/kubelet/device-plugins", "the kubelet's folder of plugin sockets")
	flag.StringVar(&options.resource, "resource", "nvidia.com/gpu", "name of the extended resource")
	flag.StringVar(&options.node, "node", "", "name of the node; device ids are derived from it")
	flag.StringVar(&options.prefix, "prefix", "GPU", "how device ids begin")
	flag.StringVar(&options.variable, "env", "", "variable that lists a container's devices, as NVIDIA_VISIBLE_DEVICES does")
	flag.IntVar(&options.count, "count", 8, "number of devices")
	flag.IntVar(&options.numaNodes, "numa", 1, "number of NUMA nodes to spread them over, 0 for none reported")
	flag.StringVar(&options.unhealthy, "unhealthy", "", "file that lists the indices of broken devices")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, options); err != nil {
		fmt.Fprintln(os.Stderr, "deviceplugin:", err)
		os.Exit(1)
	}
}
