module flowforge.dev/testbed/node/runner

go 1.26.8
