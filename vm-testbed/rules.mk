# Rules of the VM testbed, included by the Makefile at the top of the checkout.
#
#   make vm                   every scenario, in a Debian guest under QEMU
#   make vm SCENARIO=name     one of them (several: SCENARIO='one two')
#   make vm-table             write the table of the last full run into vm-testbed/README.md

VM_PROGRAMS := qemu-system-x86_64 mmdebstrap mke2fs setpriv ntfs-3g fusermount
VM_PACKAGES := qemu-system-x86 mmdebstrap e2fsprogs util-linux ntfs-3g fuse3

.PHONY: vm vm-packages vm-table

vm: $(VENV)/.test vm-packages
	@$(BIN)/python vm-testbed/testbed.py run $(SCENARIO)

vm-table: $(VENV)/.test
	@$(BIN)/python vm-testbed/testbed.py table vm-testbed/README.md

# The tests of tests/interop that boot the guest need the same programs.
test test-long: vm-packages

vm-packages:
	@PATH="$$PATH:/usr/sbin:/sbin"; missing=; \
	for program in $(VM_PROGRAMS); do \
	    command -v "$$program" >/dev/null || missing="$$missing $$program"; \
	done; \
	if [ -n "$$missing" ]; then \
	    if [ "$$(id -u)" = 0 ]; then \
	        echo "vm: installing $(VM_PACKAGES) (missing:$$missing)"; \
	        apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes \
	            --no-install-recommends $(VM_PACKAGES) >/dev/null; \
	    else \
	        echo "vm: missing:$$missing; as root: apt-get install $(VM_PACKAGES)"; \
	    fi; \
	fi
