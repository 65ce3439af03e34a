/* The load generator: sends prepared requests over keep-alive connections, checks every answer.
 *
 * Closed loop: each connection sends its next request when it has its answer. Open loop (--rate):
 * requests are due at fixed moments, and a latency counts from when the request was due, so that a
 * server that stalls cannot hide the requests that it kept from being sent.
 *
 * A file of requests is a row of records: a `struct record`, the request's bytes, and the bytes
 * that its answer must hold. Times are nanoseconds of CLOCK_MONOTONIC.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { PLAIN, RENAME, READ, NUMBERED };
#define DIGITS 6
#define LARGEST 65536
#define GRACE 15000000000LL /* How long answers are waited for when the time is over. */

struct record {
    uint32_t request, expect; /* Lengths. */
    uint32_t kind;
    uint32_t slot;  /* Whose name it is; of RENAME and READ. */
    uint32_t patch; /* Where in the request the digits stand; of RENAME and NUMBERED. */
};

struct slot {
    uint32_t sent, acknowledged;
    bool busy; /* Two renames at once would leave it open which of them is the later one. */
};

struct connection {
    int fd;
    bool busy;
    const struct record *record;
    int64_t due;
    uint32_t version; /* RENAME: the one that was sent. READ: the least that may be answered. */
    size_t filled;
    char in[LARGEST];
};

static struct {
    const char *host;
    int port, connections;
    double seconds, rate;
    bool once, refusals, drain;
    uint32_t first_version;
} option = {.host = "127.0.0.1", .connections = 64, .seconds = 5};

static const struct record **records;
static size_t count, next_record;
static struct slot *slots;
static uint32_t numbered;
static struct connection *connections;
static int *idle, idle_count, poller, in_flight;

static uint64_t answered, wrong, stale, refused, refused_silently, lost, counted;
static char example[1024];

/* A histogram of 128 steps for each power of two: an error of less than one per cent. */
#define STEPS 128
static uint64_t histogram[64 * STEPS];
static uint64_t worst;

static int64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void die(const char *what) {
    fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
    exit(2);
}

static void tally(uint64_t ns) {
    if (ns > worst) worst = ns;
    if (ns < STEPS) ns = STEPS;
    int power = 63 - __builtin_clzll(ns);
    histogram[power * STEPS + ((ns >> (power - 7)) & (STEPS - 1))]++;
}

static double percentile(double part) {
    uint64_t rank = (uint64_t)(part * counted), seen = 0;
    for (int i = 0; i < 64 * STEPS; i++) {
        seen += histogram[i];
        if (seen > rank) {
            int power = i / STEPS;
            uint64_t low = (1ULL << power) + ((uint64_t)(i % STEPS) << (power - 7));
            return (low + (1ULL << (power - 7)) / 2) / 1000.0;
        }
    }
    return worst / 1000.0;
}

static void read_records(const char *path) {
    int fd = open(path, O_RDONLY);
    struct stat s;
    if (fd < 0 || fstat(fd, &s) < 0) die(path);
    char *at = mmap(NULL, s.st_size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, fd, 0);
    if (at == MAP_FAILED) die(path);
    const char *end = at + s.st_size;
    size_t room = 0;
    uint32_t largest_slot = 0;
    while (at < end) {
        if (count == room) {
            room = room ? room * 2 : 4096;
            records = realloc(records, room * sizeof *records);
        }
        const struct record *r = (const struct record *)at;
        records[count++] = r;
        if ((r->kind == RENAME || r->kind == READ) && r->slot > largest_slot)
            largest_slot = r->slot;
        /* Records begin at multiples of four, which the lengths in them need. */
        at += sizeof *r + ((r->request + r->expect + 3) & ~3u);
    }
    if (!count) { errno = ENODATA; die(path); }
    slots = calloc(largest_slot + 1, sizeof *slots);
    close(fd);
}

static void open_connection(struct connection *c) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(option.port)};
    inet_pton(AF_INET, option.host, &to.sin_addr);
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int one = 1;
    if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&to, sizeof to) < 0) die("connect");
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    fcntl(c->fd, F_SETFL, O_NONBLOCK);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, c->fd, &event) < 0) die("epoll_ctl");
    c->busy = false;
    c->filled = 0;
}

static void reopen(struct connection *c) {
    close(c->fd);
    open_connection(c);
}

/* The next request that may be sent now, or none. */
static const struct record *take(void) {
    for (size_t tries = 0; tries < count; tries++) {
        if (next_record == count) {
            if (option.once) return NULL;
            next_record = 0;
        }
        const struct record *r = records[next_record++];
        if (r->kind == RENAME && slots[r->slot].busy) continue;
        return r;
    }
    return NULL;
}

static void submit(struct connection *c, const struct record *r, int64_t due) {
    char out[LARGEST];
    uint32_t version = 0;
    memcpy(out, r + 1, r->request);
    if (r->kind == RENAME) {
        struct slot *s = &slots[r->slot];
        s->busy = true;
        version = s->sent = s->sent ? s->sent + 1 : option.first_version + 1;
    } else if (r->kind == NUMBERED) {
        version = (option.first_version + numbered++) % 1000000;
    } else if (r->kind == READ) {
        version = slots[r->slot].acknowledged;
    }
    if (r->kind == RENAME || r->kind == NUMBERED) {
        char digits[DIGITS + 8];
        snprintf(digits, sizeof digits, "%0*u", DIGITS, version % 1000000);
        memcpy(out + r->patch, digits, DIGITS);
    }
    c->busy = true;
    c->record = r;
    c->due = due;
    c->version = version;
    c->filled = 0;
    in_flight++;
    for (size_t sent = 0; sent < r->request;) {
        ssize_t n = send(c->fd, out + sent, r->request - sent, MSG_NOSIGNAL);
        if (n > 0) sent += n;
        else if (errno != EAGAIN && errno != EINTR) return; /* The reader sees the end. */
    }
}

static void complain(const struct connection *c, const char *what) {
    if (example[0]) return;
    int n = snprintf(example, sizeof example, "%s: ", what);
    for (size_t i = 0; i < c->filled && n < 900; i++) {
        unsigned char b = c->in[i];
        if (b >= 32 && b < 127 && b != '"' && b != '\\') example[n++] = b;
        else n += snprintf(example + n, 8, "<%02x>", b);
    }
    example[n] = 0;
}

static const char *header(const char *head, size_t length, const char *name) {
    size_t n = strlen(name);
    for (const char *line = head; (line = memchr(line, '\n', head + length - line));) {
        if (head + length - ++line > (long)n && !strncasecmp(line, name, n) && line[n] == ':')
            return line + n + 1;
    }
    return NULL;
}

static void judge(struct connection *c, size_t head, size_t body) {
    const struct record *r = c->record;
    const char *expect = (const char *)(r + 1) + r->request, *text = c->in + head;
    const char *found = memmem(text, body, expect, r->expect);
    bool good = c->in[9] == '2' && found;
    if (good && r->kind == READ) {
        const char *digits = found + r->expect;
        uint32_t version = 0;
        good = digits + DIGITS <= text + body;
        for (int i = 0; good && i < DIGITS; i++) version = version * 10 + digits[i] - '0';
        if (good && version < c->version) {
            stale++;
            complain(c, "stale");
        }
    }
    if (r->kind == RENAME) {
        slots[r->slot].busy = false;
        if (good) slots[r->slot].acknowledged = c->version;
    }
    if (good) answered++;
    else if (option.refusals && c->in[9] != '5' && header(c->in, head, "retry-after")) refused++;
    else if (option.refusals && c->in[9] == '2') {
        refused_silently++;
        complain(c, "refused without a time to come back");
    } else {
        wrong++;
        complain(c, "wrong");
    }
}

/* Reads what has come. Returns whether the connection has become idle. */
static bool receive(struct connection *c) {
    ssize_t n = recv(c->fd, c->in + c->filled, LARGEST - 1 - c->filled, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return false;
    if (n <= 0) {
        bool was_busy = c->busy;
        if (was_busy) {
            if (c->record->kind == RENAME) slots[c->record->slot].busy = false;
            complain(c, "the connection was lost");
            in_flight--;
            if (++lost > 1000) die("too many connections were lost");
        }
        reopen(c);
        return was_busy;
    }
    c->filled += n;
    c->in[c->filled] = 0;
    const char *end = memmem(c->in, c->filled, "\r\n\r\n", 4);
    if (!c->busy || !end || c->filled < 12) return false;
    size_t head = end + 4 - c->in, body = 0;
    const char *length = header(c->in, head, "content-length");
    if (length) body = strtoul(length, NULL, 10);
    if (head + body >= LARGEST) { errno = EMSGSIZE; die("an answer"); }
    if (c->filled < head + body) return false;
    judge(c, head, body);
    in_flight--;
    c->busy = false;
    const char *ends = header(c->in, head, "connection");
    if (ends && !strncasecmp(ends + strspn(ends, " "), "close", 5)) reopen(c);
    return true;
}

static void run(int64_t begin, int64_t end) {
    uint64_t issued = 0;
    double gap = option.rate > 0 ? 1e9 / option.rate : 0;
    bool dry = false;
    static struct epoll_event events[1024];
    for (;;) {
        int64_t t = now();
        while (!dry && t < end && idle_count) {
            int64_t due = gap > 0 ? begin + (int64_t)(issued * gap) : t;
            if (due > t) break;
            const struct record *r = take();
            if (!r) {
                dry = option.once;
                break;
            }
            issued++;
            submit(&connections[idle[--idle_count]], r, due);
        }
        if ((dry || t >= end) && (!in_flight || t > end + GRACE)) {
            /* What never came is lost as well. */
            lost += in_flight;
            break;
        }
        int64_t wait = 100000000;
        if (gap > 0 && idle_count && t < end) {
            wait = begin + (int64_t)(issued * gap) - t;
            if (wait < 0) wait = 0;
        }
        struct timespec timeout = {wait / 1000000000, wait % 1000000000};
        int n = epoll_pwait2(poller, events, 1024, &timeout, NULL);
        for (int i = 0; i < n; i++) {
            struct connection *c = events[i].data.ptr;
            if (!receive(c)) continue;
            idle[idle_count++] = c - connections;
            int64_t done = now();
            /* An open loop counts late answers too: they are the ones that matter. So does a
             * loop that waits for the last of few slow ones. */
            if (done <= end || gap > 0 || option.drain) {
                counted++;
                tally(done - c->due);
            }
        }
    }
}

int main(int argc, char **argv) {
    for (int opt; (opt = getopt(argc, argv, "p:c:s:r:v:ofd")) != -1;) {
        switch (opt) {
        case 'p': option.port = atoi(optarg); break;
        case 'c': option.connections = atoi(optarg); break;
        case 's': option.seconds = atof(optarg); break;
        case 'r': option.rate = atof(optarg); break;
        case 'v': option.first_version = strtoul(optarg, NULL, 10); break;
        case 'o': option.once = true; break;
        case 'f': option.refusals = true; break;
        case 'd': option.drain = true; break;
        default: return 2;
        }
    }
    if (optind + 1 != argc) return 2;
    prctl(PR_SET_TIMERSLACK, 1000);
    read_records(argv[optind]);
    poller = epoll_create1(EPOLL_CLOEXEC);
    connections = calloc(option.connections, sizeof *connections);
    idle = calloc(option.connections, sizeof *idle);
    for (int i = 0; i < option.connections; i++) {
        open_connection(&connections[i]);
        idle[idle_count++] = i;
    }
    int64_t begin = now(), end = begin + (int64_t)(option.seconds * 1e9);
    run(begin, end);
    int64_t stopped = now();
    double seconds = ((stopped < end || option.rate > 0 || option.drain ? stopped : end) - begin) / 1e9;
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    double cpu = used.ru_utime.tv_sec + used.ru_stime.tv_sec +
                 (used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
    printf("{\"seconds\": %.4f, \"requests\": %lu, \"finished\": %lu, \"answered\": %lu,"
           " \"wrong\": %lu, \"stale\": %lu, \"refused\": %lu, \"refused_silently\": %lu,"
           " \"lost\": %lu, \"cpu\": %.3f, \"p50\": %.1f, \"p90\": %.1f, \"p99\": %.1f,"
           " \"p999\": %.1f, \"max\": %.1f, \"example\": \"%s\"}\n",
           seconds, counted, answered + wrong + refused + refused_silently, answered, wrong, stale,
           refused, refused_silently, lost, cpu, percentile(0.5), percentile(0.9),
           percentile(0.99), percentile(0.999), worst / 1000.0, example);
    return 0;
}
