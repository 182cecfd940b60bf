/* A small CGI program: what the figures of docs/benchmarks/wasm.md call the C module. */
#include <stdio.h>
#include <stdlib.h>

/* Changed in the binary, so that many apps have different modules. */
const char app[] = "APP-0000";

int main(void) {
  const char *path = getenv("PATH_INFO");
  printf("Content-Type: text/plain\n\nHello from %s at %s\n", app, path ? path : "");
  return 0;
}
