/* xattr get FILE NAME | xattr set FILE NAME HEX: extended attributes, for an image that has no tool for them. */
#include <stdio.h>
#include <string.h>
#include <sys/xattr.h>

int main(int argc, char **argv) {
    unsigned char value[256];
    if (argc == 4 && !strcmp(argv[1], "get")) {
        ssize_t n = getxattr(argv[2], argv[3], value, sizeof value);
        if (n < 0) { perror(argv[2]); return 1; }
        for (ssize_t i = 0; i < n; i++) printf("%02x", value[i]);
        puts("");
        return 0;
    }
    if (argc == 5 && !strcmp(argv[1], "set") && strlen(argv[4]) / 2 <= sizeof value) {
        size_t n = strlen(argv[4]) / 2;
        for (size_t i = 0; i < n; i++) sscanf(argv[4] + 2 * i, "%2hhx", &value[i]);
        if (setxattr(argv[2], argv[3], value, n, 0)) { perror(argv[2]); return 1; }
        return 0;
    }
    fputs("usage: xattr get FILE NAME | xattr set FILE NAME HEX\n", stderr);
    return 2;
}
