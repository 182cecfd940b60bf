package site_test

import (
	"errors"
	"os"
	"testing"
	"testing/fstest"

	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/site"
)

// machine is a root file system with these files.
func machine(files map[string]string) fstest.MapFS {
	root := fstest.MapFS{}
	for name, text := range files {
		root[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return root
}

const dmi = "sys/class/dmi/id/"

// card returns the files of a network card.
func card(name, address, assigned, driver string) map[string]string {
	dir := "sys/class/net/" + name + "/"
	files := map[string]string{dir + "address": address + "\n", dir + "addr_assign_type": assigned + "\n", dir + "type": "1\n"}
	if driver != "" {
		files[dir+"device/uevent"] = driver
	}
	return files
}

func merge(all ...map[string]string) map[string]string {
	out := map[string]string{}
	for _, files := range all {
		for name, text := range files {
			out[name] = text
		}
	}
	return out
}

func TestFingerprintSource(t *testing.T) {
	id := map[string]string{"etc/machine-id": "4c0a2f6e8b1d4f4e9a7b3c5d6e7f8091\n"}
	eth := card("eth0", "52:54:00:12:34:56", "0", "DRIVER=igb")
	tests := []struct {
		files  map[string]string
		source string
		reason string
	}{
		{merge(id, eth, map[string]string{dmi + "product_uuid": "4c4c4544-0042-3510-8052-b4c04f564433\n", dmi + "product_serial": "B5RVD3\n"}), "uuid", "the firmware's UUID comes first"},
		{merge(id, eth, map[string]string{dmi + "product_uuid": "03000200-0400-0500-0006-000700080009\n", dmi + "product_serial": "B5RVD3\n"}), "serial", "a UUID that a maker gave to all his boards tells nothing"},
		{merge(id, eth, map[string]string{dmi + "product_uuid": "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF\n", dmi + "product_serial": "To Be Filled By O.E.M.\n", dmi + "board_serial": "MB-1234567\n"}), "serial", "the board's serial number stands in for the machine's"},
		{merge(id, eth, map[string]string{dmi + "product_serial": "Default string", dmi + "board_serial": "0000000"}), "mac", "placeholders are no serial numbers"},
		{merge(id, eth, map[string]string{"sys/firmware/devicetree/base/serial-number": "10000000abcdef01\x00"}), "board", "a board with a device tree has no DMI"},
		{merge(id, eth), "mac", "a card of the machine is better than a file on its disk"},
		{merge(id, card("br0", "52:54:00:12:34:57", "0", "")), "machine-id", "a virtual card has an address that software gave it"},
		{merge(id, card("wlan0", "52:54:00:12:34:58", "1", "DRIVER=iwlwifi")), "machine-id", "a random address is not permanent"},
		{merge(id, card("eth1", "52:54:00:12:34:59", "0", "DEVTYPE=usb_interface")), "machine-id", "what hangs on USB may move to another machine"},
		{merge(id, card("eth1", "00:00:00:00:00:00", "0", "DRIVER=igb")), "machine-id", "no address at all"},
	}
	for _, tt := range tests {
		fingerprint, source, err := site.Fingerprint(machine(tt.files))
		if err != nil || source != tt.source || fleet.ValidateFingerprint(fingerprint) != nil {
			t.Errorf("%q by %q, %v; want it by %q: %s", fingerprint, source, err, tt.source, tt.reason)
		}
	}
	for _, files := range []map[string]string{{}, {"etc/machine-id": "uninitialized\n"}} {
		if got, _, err := site.Fingerprint(machine(files)); !errors.Is(err, site.ErrNoFingerprint) {
			t.Errorf("a machine with nothing to be known by has %q, %v", got, err)
		}
	}
}

func TestFingerprintIsStable(t *testing.T) {
	print := func(files ...map[string]string) string {
		t.Helper()
		fingerprint, _, err := site.Fingerprint(machine(merge(files...)))
		if err != nil {
			t.Fatal(err)
		}
		return fingerprint
	}
	a, b := card("eth0", "52:54:00:00:00:0a", "0", "DRIVER=igb"), card("eth1", "52:54:00:00:00:0b", "0", "DRIVER=igb")
	swapped := merge(card("eth1", "52:54:00:00:00:0a", "0", "DRIVER=igb"), card("eth0", "52:54:00:00:00:0B", "0", "DRIVER=igb"))
	if print(a, b) != print(swapped) {
		t.Error("cards that were found in another order make another machine")
	}
	if print(a) == print(b) {
		t.Error("two machines are one")
	}
	// Sites are bound to fingerprints: this one never changes.
	const frozen = "4e618aedecc6b9cd27933b8a6e58897b"
	if got := print(map[string]string{dmi + "product_uuid": "4C4C4544-0042-3510-8052-B4C04F564433\n"}); got != frozen {
		t.Errorf("a known machine has fingerprint %s, had %s", got, frozen)
	}
}

// TestFingerprintOfThisMachine asks whatever machine this is twice: it says the same, be it that it has nothing
// to be known by.
func TestFingerprintOfThisMachine(t *testing.T) {
	first, source, err := site.Fingerprint(os.DirFS("/"))
	switch {
	case err == nil && fleet.ValidateFingerprint(first) != nil:
		t.Errorf("by %q it is %q, which is no fingerprint", source, first)
	case err != nil && (!errors.Is(err, site.ErrNoFingerprint) || first != ""):
		t.Errorf("%q, %v", first, err)
	}
	if again, _, err2 := site.Fingerprint(os.DirFS("/")); again != first || (err2 == nil) != (err == nil) {
		t.Errorf("it is %s, %v, then %s, %v", first, err, again, err2)
	}
}
