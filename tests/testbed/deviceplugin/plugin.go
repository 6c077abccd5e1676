package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	api "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

const (
	// How often the folder and the list of broken devices are looked at.
	pollInterval    = 200 * time.Millisecond
	registerTimeout = 5 * time.Second
	kubeletSocket   = "kubelet.sock"
)

type options struct {
	dir, resource, node string
	prefix, variable    string
	count, numaNodes    int
	unhealthy           string
}

func (o options) validate() error {
	switch {
	case o.node == "":
		return errors.New("-node is needed")
	case !strings.Contains(o.resource, "/"):
		return fmt.Errorf("-resource %q is not DOMAIN/NAME", o.resource)
	case o.count < 1 || o.count > 4096:
		return fmt.Errorf("-count %d is not in 1 to 4096", o.count)
	case len(o.prefix) > 26:
		return fmt.Errorf("-prefix %q makes device ids longer than 63 characters", o.prefix)
	case o.numaNodes < 0 || o.numaNodes > o.count:
		return fmt.Errorf("-numa %d is not in 0 to the number of devices", o.numaNodes)
	}
	return nil
}

// socket is where the plugin listens: a name of its own per resource.
func (o options) socket() string {
	return "flowforge-" + strings.ReplaceAll(o.resource, "/", "_") + ".sock"
}

// run serves until the context ends:
//
//	wait for kubelet.sock -> serve -> register -> watch --(a new kubelet)--+
//	        ^                                                             |
//	        +-------------------------------------------------------------+
func run(ctx context.Context, o options) error {
	if err := o.validate(); err != nil {
		return err
	}
	for ctx.Err() == nil {
		if err := serveOnce(ctx, o); err != nil {
			fmt.Fprintln(os.Stderr, "deviceplugin:", err)
		}
		sleep(ctx, pollInterval)
	}
	return nil
}

func sleep(ctx context.Context, length time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(length):
	}
}

// serveOnce serves one life of the kubelet.
func serveOnce(ctx context.Context, o options) error {
	kubelet := filepath.Join(o.dir, kubeletSocket)
	before, err := os.Stat(kubelet)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		return err
	}
	own := filepath.Join(o.dir, o.socket())
	if err := os.Remove(own); err != nil && !os.IsNotExist(err) {
		return err
	}
	listener, err := net.Listen("unix", own)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	server := grpc.NewServer()
	api.RegisterDevicePluginServer(server, &plugin{options: o, stop: ctx.Done()})
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	defer server.Stop()
	if err := register(ctx, kubelet, o); err != nil {
		return err
	}
	fmt.Printf("registered %d of %s\n", o.count, o.resource)
	for ctx.Err() == nil {
		select {
		case err := <-served:
			return err
		case <-time.After(pollInterval):
		case <-ctx.Done():
		}
		now, err := os.Stat(kubelet)
		if _, gone := os.Stat(own); err != nil || gone != nil || !os.SameFile(before, now) {
			return nil
		}
	}
	return nil
}

func register(ctx context.Context, kubelet string, o options) error {
	ctx, cancel := context.WithTimeout(ctx, registerTimeout)
	defer cancel()
	connection, err := grpc.NewClient("unix://"+kubelet, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()
	_, err = api.NewRegistrationClient(connection).Register(ctx, &api.RegisterRequest{
		Version:      api.Version,
		Endpoint:     o.socket(),
		ResourceName: o.resource,
		Options:      &api.DevicePluginOptions{GetPreferredAllocationAvailable: true},
	})
	return err
}

// plugin answers the kubelet. All but the broken devices are fixed.
type plugin struct {
	api.UnimplementedDevicePluginServer
	options options
	stop    <-chan struct{}
}

func (p *plugin) GetDevicePluginOptions(context.Context, *api.Empty) (*api.DevicePluginOptions, error) {
	return &api.DevicePluginOptions{GetPreferredAllocationAvailable: true}, nil
}

// ListAndWatch sends the devices, and again whenever one breaks or heals.
func (p *plugin) ListAndWatch(_ *api.Empty, stream grpc.ServerStreamingServer[api.ListAndWatchResponse]) error {
	for sent, last := false, []int(nil); ; {
		broken, err := readBroken(p.options.unhealthy)
		if err != nil {
			fmt.Fprintln(os.Stderr, "deviceplugin:", err)
			broken = last
		}
		if !sent || !slices.Equal(broken, last) {
			if err := stream.Send(&api.ListAndWatchResponse{Devices: devices(p.options, broken)}); err != nil {
				return err
			}
			sent, last = true, broken
		}
		select {
		case <-p.stop:
			return nil
		case <-stream.Context().Done():
			return nil
		case <-time.After(pollInterval):
		}
	}
}

func (p *plugin) GetPreferredAllocation(_ context.Context, request *api.PreferredAllocationRequest) (*api.PreferredAllocationResponse, error) {
	response := &api.PreferredAllocationResponse{}
	all := devices(p.options, nil)
	for _, container := range request.GetContainerRequests() {
		response.ContainerResponses = append(response.ContainerResponses,
			&api.ContainerPreferredAllocationResponse{DeviceIDs: prefer(all, container)})
	}
	return response, nil
}

// Allocate tells containers their devices, as NVIDIA's plugin does, in an
// environment variable.
func (p *plugin) Allocate(_ context.Context, request *api.AllocateRequest) (*api.AllocateResponse, error) {
	broken, err := readBroken(p.options.unhealthy)
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	health := map[string]string{}
	for _, device := range devices(p.options, broken) {
		health[device.GetID()] = device.GetHealth()
	}
	response := &api.AllocateResponse{}
	for _, container := range request.GetContainerRequests() {
		for _, id := range container.GetDevicesIds() {
			if health[id] != api.Healthy {
				return nil, status.Errorf(codes.FailedPrecondition, "device %s is broken or unknown", id)
			}
		}
		allocated := &api.ContainerAllocateResponse{}
		if p.options.variable != "" {
			allocated.Envs = map[string]string{p.options.variable: strings.Join(container.GetDevicesIds(), ",")}
		}
		response.ContainerResponses = append(response.ContainerResponses, allocated)
	}
	return response, nil
}
