/*
 * skerry.h: what a WebAssembly module at a Skerry site may ask of it. For clang with wasi-libc:
 *
 *     clang --target=wasm32-wasi -O2 -I sdk/c -o app.wasm app.c
 *
 * A module is a CGI program (RFC 3875): the request is in the environment and on standard input, the answer
 * goes to standard output. The functions here are declared as imports of the module "skerry"; one that is not
 * called is not imported. docs/spec/wasm.md has the whole interface.
 *
 * Every function returns SKERRY_OK or another of the codes; skerry_error tells the last one in words. A
 * function that fills a buffer writes to *n how much it wrote or, with SKERRY_TOO_SMALL, how much it needs.
 * Strings need no zero at their end, as their lengths are given.
 */
#ifndef SKERRY_H
#define SKERRY_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum {
  SKERRY_OK = 0,
  SKERRY_FAULT = 1,     /* an address is none of the module's memory */
  SKERRY_NOT_FOUND = 2,
  SKERRY_TOO_SMALL = 3, /* the buffer is; *n says how much is needed */
  SKERRY_INVALID = 4,   /* a key, a value or a request is not as it must be */
  SKERRY_REFUSED = 5,   /* the bundle does not allow it */
  SKERRY_LIMIT = 6,     /* a limit is reached */
  SKERRY_FAILED = 7,    /* it did not work this time */
  SKERRY_CLOSED = 8     /* there is no such answer open */
};

#define SKERRY_IMPORT(name) \
  __attribute__((import_module("skerry"), import_name(name))) extern uint32_t

/*
 * Says that the module has done all it can do without its request, and returns when there is one. wasi-libc
 * reads the environment at the first getenv, so call it before that. A module that never calls it is started
 * ahead too, as far as its first look at the request.
 */
SKERRY_IMPORT("ready") skerry_ready(void);

/* Writes what the last call that did not return SKERRY_OK had to say. */
SKERRY_IMPORT("error") skerry_error(char *into, size_t room, uint32_t *n);

/* Key-value storage of the app. Keys have 1 to 512 bytes without zeros, values at most 1 MiB. */
SKERRY_IMPORT("kv_get") skerry_kv_get(const char *key, size_t key_len, void *into, size_t room, uint32_t *n);
SKERRY_IMPORT("kv_put") skerry_kv_put(const char *key, size_t key_len, const void *value, size_t value_len);
SKERRY_IMPORT("kv_delete") skerry_kv_delete(const char *key, size_t key_len);
/* Writes keys that begin with prefix and come after the given one, each with a zero at its end; *n is 0 when
 * there are no more. */
SKERRY_IMPORT("kv_list") skerry_kv_list(const char *prefix, size_t prefix_len, const char *after, size_t after_len,
                                        char *into, size_t room, uint32_t *n);

/*
 * Outbound HTTP. The request is written as HTTP/1.1 with the whole URL in its first line, such as
 * "GET https://api.example.com/prices HTTP/1.1\r\nHost: api.example.com\r\n\r\n". The answer is read as HTTP/1.1
 * too, header and body; *n is 0 at its end. Redirects are not followed.
 */
SKERRY_IMPORT("http_open") skerry_http_open(const char *request, size_t request_len, uint32_t *answer);
SKERRY_IMPORT("http_read") skerry_http_read(uint32_t answer, void *into, size_t room, uint32_t *n);
SKERRY_IMPORT("http_close") skerry_http_close(uint32_t answer);

#ifdef __cplusplus
}
#endif

#endif
