# Adds up samples as `perf script --fields comm,pid,ip,sym,dso` prints them: THREAD PID ADDRESS SYMBOL (FILE).
# Of several instances (one warms the broker up) the one with the most samples counts.

function origin(thread, symbol, file) {
    if (file ~ /kernel/) return "kernel"
    if (symbol ~ /^(_?mi_|malloc|free|calloc|realloc|cfree|operator (new|delete)|__rust_)/) return "allocator"
    if (symbol ~ /rocksdb|XXH3|Bloom/) return "RocksDB"
    if (symbol ~ /^LZ4/) return "LZ4"
    if (symbol ~ /^(rd_|rdk|mtx_|cnd_)/ || thread ~ /^rdk:/) return "librdkafka"
    if (symbol ~ /^_*mem(cpy|move|cmp|set)/) return "memory moved and compared"
    if (symbol ~ /tillflow_processors/) return "the five systems"
    if (symbol ~ /tillflow_bench/) return "the peers' job"
    if (symbol ~ /tillflow_(engine|state)/) return "engine and state"
    if (symbol ~ /tillflow_schemas|serde|postcard|from_utf8/) return "decoding and encoding"
    return "other"
}

match($0, / +[0-9]+ +[0-9a-f]+ /) {
    thread = substr($0, 1, RSTART - 1)
    sub(/^ +/, "", thread)
    split(substr($0, RSTART, RLENGTH), numbers, " ")
    pid = numbers[1]
    rest = substr($0, RSTART + RLENGTH)
    file = rest
    sub(/.*\(/, "", file)
    sub(/ \([^(]*\)$/, "", rest)
    if (thread ~ /^customers-/) instance[pid] = 1
    of[pid]++
    all++
    group = thread
    sub(/[0-9]+$/, "*", group)
    threads[pid, group]++
    origins[pid, origin(thread, rest, file)]++
}

function table(counts, pid, sorted,   key, parts) {
    sorted = "sort -rn"
    for (key in counts) {
        split(key, parts, SUBSEP)
        if (parts[1] == pid && counts[key] >= of[pid] / 200) printf "%6.1f %%  %s\n", 100 * counts[key] / of[pid], parts[2] | sorted
    }
    close(sorted)
}

END {
    for (pid in instance) if (!measured || of[pid] > of[measured]) measured = pid
    if (!measured) {
        print "no instance was seen" > "/dev/stderr"
        exit 1
    }
    printf "\nThe instance took %.0f %% of all samples. Of its own, by thread:\n", 100 * of[measured] / all
    table(threads, measured)
    print "by origin:"
    table(origins, measured)
}
