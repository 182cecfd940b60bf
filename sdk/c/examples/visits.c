/* visits: counts its visitors in the key-value storage of the app. Its bundle declares wasm.keyValue. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "skerry.h"

static int fail(const char *what) {
  char text[256];
  uint32_t n = 0;
  if (skerry_error(text, sizeof text, &n) != SKERRY_OK) n = 0;
  printf("Status: 500 Internal Server Error\nContent-Type: text/plain\n\n%s: %.*s\n", what, (int)n, text);
  return 0;
}

int main(void) {
  char value[32] = "0";
  uint32_t n = 0;
  uint32_t code = skerry_kv_get("visits", strlen("visits"), value, sizeof value - 1, &n);
  if (code != SKERRY_OK && code != SKERRY_NOT_FOUND) return fail("read");
  if (code == SKERRY_OK) value[n] = 0;
  int visits = atoi(value) + 1;
  n = (uint32_t)snprintf(value, sizeof value, "%d", visits);
  if (skerry_kv_put("visits", strlen("visits"), value, n) != SKERRY_OK) return fail("write");
  const char *site = getenv("SKERRY_SITE");
  const char *path = getenv("PATH_INFO");
  printf("Content-Type: text/plain\n\nvisit %d of %s at %s\n", visits, path ? path : "", site ? site : "no site");
  return 0;
}
