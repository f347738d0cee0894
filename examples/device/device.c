/* Prints the messages of a JSON stream as they come, and goes on after a restart: device URL OFFSET-FILE
   cc -o device device.c -lcurl (libcurl 7.84 or later) */
#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ANSWER_MAX = 1 << 20, OFFSET_MAX = 64, PAUSE_SECONDS = 5 };

struct answer {
    char body[ANSWER_MAX];
    size_t length;
};

/* Keeps a part of the body. Returning less than its size makes curl give the request up. */
static size_t keep(char *part, size_t one, size_t size, void *kept) {
    struct answer *answer = kept;
    if (size > ANSWER_MAX - answer->length) return 0;
    memcpy(answer->body + answer->length, part, size);
    answer->length += size;
    return one * size;
}

static void read_offset(const char *path, char offset[OFFSET_MAX]) {
    FILE *file = fopen(path, "r");
    if (!file || fscanf(file, "%63s", offset) != 1) strcpy(offset, "-1");
    if (file) fclose(file);
}

/* The file has the old offset or the new one at each moment. */
static int write_offset(const char *path, const char *offset) {
    char new_path[4096];
    if (snprintf(new_path, sizeof new_path, "%s.new", path) >= (int)sizeof new_path) return 0;
    FILE *file = fopen(new_path, "w");
    if (!file) return 0;
    int written = fprintf(file, "%s\n", offset) > 0;
    return fclose(file) == 0 && written && rename(new_path, path) == 0;
}

/* Returns a header field of the last response, or NULL. */
static const char *field(CURL *curl, const char *name) {
    struct curl_header *found;
    return curl_easy_header(curl, name, 0, CURLH_HEADER, -1, &found) == CURLHE_OK ? found->value : NULL;
}

int main(int count, char **arguments) {
    if (count != 3) {
        fprintf(stderr, "usage: device URL OFFSET-FILE\n");
        return 2;
    }
    static struct answer answer;
    char offset[OFFSET_MAX], url[8192];
    curl_global_init(CURL_GLOBAL_DEFAULT);
    CURL *curl = curl_easy_init();
    if (!curl) return 1;
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, keep);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, &answer);
    curl_easy_setopt(curl, CURLOPT_TIMEOUT, 60L);
    read_offset(arguments[2], offset);
    for (;;) {
        long status = 0;
        snprintf(url, sizeof url, "%s?live=long-poll&timeout=25&offset=%s", arguments[1], offset);
        curl_easy_setopt(curl, CURLOPT_URL, url);
        answer.length = 0;
        CURLcode outcome = curl_easy_perform(curl);
        curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
        /* Where messages are no longer kept (410), from where the stream can be read. */
        const char *next = field(curl, status == 410 ? "stream-earliest-offset" : "stream-next-offset");
        if (outcome != CURLE_OK || !next || strlen(next) >= OFFSET_MAX) {
            sleep(PAUSE_SECONDS);
            continue;
        }
        if (status == 200) {
            fwrite(answer.body, 1, answer.length, stdout);
            if (puts("") == EOF || fflush(stdout) != 0) return 1;
        }
        strcpy(offset, next);
        if (!write_offset(arguments[2], offset)) {
            perror(arguments[2]);
            return 1;
        }
        /* Nothing will follow. */
        if (field(curl, "stream-closed")) return 0;
    }
}
