package main

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	api "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

// deviceID is stable over restarts, differs between nodes, and has the form of
// a GPU's UUID: PREFIX-8-4-4-4-12. The kubelet takes 63 characters at most.
func deviceID(o options, index int) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s/%s/%d", o.node, o.resource, index))
	return fmt.Sprintf("%s-%x-%x-%x-%x-%x", o.prefix, sum[:4], sum[4:6], sum[6:8], sum[8:10], sum[10:16])
}

// numaNode returns the NUMA node of a device: runs of equal length, the last
// ones shorter where the count does not divide.
func numaNode(index, count, nodes int) int64 {
	perNode := (count + nodes - 1) / nodes
	return int64(index / perNode)
}

// devices are the devices of a node, the broken ones marked.
func devices(o options, broken []int) []*api.Device {
	all := make([]*api.Device, o.count)
	for index := range all {
		device := &api.Device{ID: deviceID(o, index), Health: api.Healthy}
		if o.numaNodes > 0 {
			node := &api.NUMANode{ID: numaNode(index, o.count, o.numaNodes)}
			device.Topology = &api.TopologyInfo{Nodes: []*api.NUMANode{node}}
		}
		if slices.Contains(broken, index) {
			device.Health = api.Unhealthy
		}
		all[index] = device
	}
	return all
}

// readBroken reads the list of broken devices; no file means none.
func readBroken(path string) ([]int, error) {
	if path == "" {
		return nil, nil
	}
	text, err := os.ReadFile(path)
	if os.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var broken []int
	for word := range strings.FieldsSeq(string(text)) {
		index, err := strconv.Atoi(word)
		if err != nil {
			return nil, fmt.Errorf("%s: %q is not the index of a device", path, word)
		}
		broken = append(broken, index)
	}
	return broken, nil
}

// prefer chooses devices for a container: what it must have, then those on the
// NUMA node that can hold all of the rest with the least left over, else from
// the fullest nodes first. Within a node the order is that of the devices.
func prefer(all []*api.Device, request *api.ContainerPreferredAllocationRequest) []string {
	chosen := slices.Clone(request.GetMustIncludeDeviceIDs())
	missing := int(request.GetAllocationSize()) - len(chosen)
	if missing <= 0 {
		return chosen
	}
	free := map[int64][]string{}
	var nodes []int64
	for _, device := range all {
		id := device.GetID()
		if slices.Contains(chosen, id) || !slices.Contains(request.GetAvailableDeviceIDs(), id) {
			continue
		}
		node := nodeOf(device)
		if free[node] == nil {
			nodes = append(nodes, node)
		}
		free[node] = append(free[node], id)
	}
	slices.SortFunc(nodes, func(a, b int64) int {
		fitsA, fitsB := len(free[a]) >= missing, len(free[b]) >= missing
		switch {
		case fitsA && fitsB:
			return cmp.Or(cmp.Compare(len(free[a]), len(free[b])), cmp.Compare(a, b))
		case fitsA:
			return -1
		case fitsB:
			return 1
		default:
			return cmp.Or(cmp.Compare(len(free[b]), len(free[a])), cmp.Compare(a, b))
		}
	})
	for _, node := range nodes {
		take := min(missing, len(free[node]))
		chosen = append(chosen, free[node][:take]...)
		missing -= take
	}
	return chosen
}

func nodeOf(device *api.Device) int64 {
	if nodes := device.GetTopology().GetNodes(); len(nodes) > 0 {
		return nodes[0].GetID()
	}
	return 0
}
