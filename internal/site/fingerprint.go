package site

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// ErrNoFingerprint means that a machine has nothing to be told from others by.
var ErrNoFingerprint = errors.New("this machine has no serial number, no network card of its own and no machine-id to be known by")

// Fingerprint tells the machine whose root file system this is (os.DirFS("/") for this one) from others: the
// first 16 bytes, as hexadecimal digits, of the SHA-256 of a label, the name of a source, and what that source
// says. The source is the first of these that says anything of its own:
//
//   - uuid: the UUID that the firmware gives the machine (DMI), for root alone to read
//   - serial: the serial number of the machine, else of its board (DMI), for root alone to read
//   - board: the serial number in the device tree, as boards with an ARM processor have it
//   - mac: the permanent addresses of its network cards, in order, those behind USB left out
//   - machine-id: systemd's, which a copied disk copies
//
// It stays the same over restarts and a new installation, but for machine-id, and changes with the mainboard,
// with a network card where there is nothing better, and with the user when only root reads the better source.
// It also returns the name of the source.
func Fingerprint(root fs.FS) (fingerprint, source string, err error) {
	for _, s := range []struct {
		name string
		read func(fs.FS) string
	}{
		{"uuid", func(root fs.FS) string { return strings.ToLower(identifier(root, "sys/class/dmi/id/product_uuid")) }},
		{"serial", func(root fs.FS) string {
			return identifier(root, "sys/class/dmi/id/product_serial", "sys/class/dmi/id/board_serial")
		}},
		{"board", func(root fs.FS) string {
			return identifier(root, "sys/firmware/devicetree/base/serial-number", "proc/device-tree/serial-number")
		}},
		{"mac", permanentAddresses},
		{"machine-id", func(root fs.FS) string { return identifier(root, "etc/machine-id") }},
	} {
		if value := s.read(root); value != "" {
			sum := sha256.Sum256([]byte("skerry hardware v1\n" + s.name + "\n" + value))
			return hex.EncodeToString(sum[:16]), s.name, nil
		}
	}
	return "", "", ErrNoFingerprint
}

// placeholders are what makers leave in place of a number, so that many machines share it.
var placeholders = map[string]bool{
	"03000200-0400-0500-0006-000700080009": true, "12345678-1234-5678-90ab-cddeefaabbcc": true,
	"none": true, "n/a": true, "na": true, "unknown": true, "uninitialized": true, "not specified": true, "not applicable": true,
	"default string": true, "system serial number": true, "base board serial number": true, "chassis serial number": true,
	"empty": true, "oem": true, "invalid": true, "123456789": true, "0123456789": true, "1234567890": true,
}

// minIdentifier is the shortest text that is taken for a serial number.
const minIdentifier = 4

// identifier returns what the first readable file says, without what makers leave in place of a number.
func identifier(root fs.FS, names ...string) string {
	for _, name := range names {
		data, err := fs.ReadFile(root, name)
		if err != nil || len(data) > 4096 {
			continue
		}
		text := strings.Trim(string(data), " \t\r\n\x00")
		low := strings.ToLower(text)
		// All zeros, all F, or another single character in a row is no number either.
		plain := strings.Map(func(r rune) rune {
			if strings.ContainsRune("-. :", r) {
				return -1
			}
			return r
		}, low)
		if len(plain) < minIdentifier || placeholders[low] || strings.Contains(low, "filled by") || strings.Trim(plain, plain[:1]) == "" {
			continue
		}
		return text
	}
	return ""
}

// permanentAddresses returns the addresses of the network cards that are part of the machine, sorted: those
// that say that the maker gave the address (addr_assign_type 0 in the kernel's ABI for class net) and that
// are neither virtual nor behind USB.
func permanentAddresses(root fs.FS) string {
	const class = "sys/class/net"
	entries, err := fs.ReadDir(root, class)
	if err != nil {
		return ""
	}
	var found []string
	for _, e := range entries {
		dir := path.Join(class, e.Name())
		if read(root, path.Join(dir, "addr_assign_type")) != "0" || read(root, path.Join(dir, "type")) != "1" {
			continue
		}
		if _, err := fs.Stat(root, path.Join(dir, "device")); err != nil {
			continue // virtual
		}
		if strings.Contains(read(root, path.Join(dir, "device", "uevent")), "usb") {
			continue
		}
		address := strings.ToLower(read(root, path.Join(dir, "address")))
		if address == "" || strings.Trim(address, "0:") == "" || slices.Contains(found, address) {
			continue
		}
		found = append(found, address)
	}
	slices.Sort(found)
	return strings.Join(found, " ")
}

func read(root fs.FS, name string) string {
	data, err := fs.ReadFile(root, name)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}
