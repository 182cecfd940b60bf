// Command kitchen is a guest for tests: a CGI program without net/http, which does what its path says.
package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"sort"
	"strconv"
	"strings"
	"time"
)

func main() {
	if task := os.Getenv("SKERRY_TASK"); task != "" {
		runTask(task)
		return
	}
	what, arg, _ := strings.Cut(strings.TrimPrefix(os.Getenv("PATH_INFO"), "/"), "/")
	if f, ok := dishes[what]; ok {
		f(arg)
		return
	}
	fmt.Print("Status: 404 Not Found\nContent-Type: text/plain\n\nno such dish\n")
}

func runTask(name string) {
	fmt.Println("task", name, strings.Join(os.Args[1:], ","))
	if name == "stays" {
		for {
			time.Sleep(10 * time.Millisecond)
		}
	}
	if name == "fails" {
		os.Exit(4)
	}
}

func header() { fmt.Print("Content-Type: text/plain\n\n") }

var kept [][]byte

var dishes = map[string]func(arg string){
	"hello": func(string) { header(); fmt.Println("hello") },
	"env": func(string) {
		header()
		env := os.Environ()
		sort.Strings(env)
		fmt.Println(strings.Join(env, "\n"))
	},
	"raw": func(arg string) { io.Copy(os.Stdout, os.Stdin) },
	"echo": func(string) {
		header()
		io.Copy(os.Stdout, os.Stdin)
	},
	"loop": func(string) {
		for n := 0; ; n++ {
			if n < 0 {
				fmt.Println(n)
			}
		}
	},
	"memory": func(string) {
		for {
			b := make([]byte, 1<<20)
			for i := range b {
				b[i] = 1
			}
			kept = append(kept, b)
		}
	},
	"recurse": func(string) { fmt.Println(deep(1)) },
	"flood": func(string) {
		header()
		b := make([]byte, 64<<10)
		for {
			if _, err := os.Stdout.Write(b); err != nil {
				os.Exit(1)
			}
		}
	},
	"log": func(string) {
		for n := range 100_000 {
			fmt.Fprintln(os.Stderr, "line", n, strings.Repeat("x", 100))
		}
		header()
	},
	"exit":  func(arg string) { code, _ := strconv.Atoi(arg); os.Exit(code) },
	"panic": func(string) { panic("on the stove") },
	"sleep": func(arg string) {
		d, _ := time.ParseDuration(arg)
		time.Sleep(d)
		header()
		fmt.Println("slept")
	},
	"late": func(arg string) { // a header, then a pause, then the rest
		header()
		fmt.Println("first")
		d, _ := time.ParseDuration(arg)
		time.Sleep(d)
		fmt.Println("second")
	},
	"half": func(string) { header(); fmt.Println("half of it"); os.Exit(3) },
	"read": func(arg string) {
		header()
		b, err := os.ReadFile("/" + arg)
		fmt.Printf("%s|%v\n", b, err)
	},
	"write": func(arg string) {
		header()
		fmt.Println(os.WriteFile("/"+arg, []byte("written"), 0o600))
	},
	"link": func(arg string) {
		header()
		from, to, _ := strings.Cut(arg, "=")
		fmt.Println(os.Symlink(from, "/"+to), os.Link("/"+from, "/"+to))
	},
	"files": func(arg string) {
		header()
		var open []*os.File
		for {
			f, err := os.Open("/" + arg)
			if err != nil {
				fmt.Println(len(open), err)
				return
			}
			open = append(open, f)
		}
	},
	"state": func(string) { // what one request leaves behind the next must not see
		header()
		kept = append(kept, []byte("x"))
		fmt.Println(len(kept))
	},
	"clock": func(string) {
		header()
		fmt.Println(time.Now().Unix())
	},
	"lines": func(string) {
		header()
		in := bufio.NewScanner(os.Stdin)
		for in.Scan() {
			fmt.Println(strings.ToUpper(in.Text()))
		}
	},
}

func deep(n int) int {
	var pad [64]int
	pad[n%64] = n
	return deep(n+1) + pad[(n+1)%64]
}
