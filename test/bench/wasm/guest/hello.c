/* A small CGI program: what the figures of docs/benchmarks/wasm.md call the C module. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Changed in the binary, so that many apps have different modules. */
const char app[] = "APP-0000";

int main(void) {
  const char *path = getenv("PATH_INFO");
  printf("Content-Type: text/plain\n\nHello from %s at %s\n", app, path ? path : "");
  if (path && strcmp(path, "/wait") == 0)
    for (int i = 0; i < 64; i++) printf("%1024d\n", i);
  return 0;
}
