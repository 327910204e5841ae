// Package localstack starts real PostgreSQL clusters (a primary with streaming replicas), Kafka in KRaft mode,
// Elasticsearch and Redis as local processes on free ports of 127.0.0.1, and stops them without orphans.
//
// # Where programs come from
//
// Each program is looked for in this order, and the first that is there is used:
//
//  1. $TIDEMARK_POSTGRES_<major> (a folder of binaries), $TIDEMARK_REDIS_SERVER, $TIDEMARK_KAFKA_LIBS (a folder of jars),
//     $TIDEMARK_ELASTICSEARCH_HOME, $TIDEMARK_JAVA_HOME
//  2. what is installed: /usr/lib/postgresql/<major>/bin, $PATH, /usr/lib/jvm
//  3. the cache folder: $TIDEMARK_CACHE, else /var/cache/tidemark for root, else tidemark below os.UserCacheDir
//  4. the package registries, through their own clients: mvn for PostgreSQL, Kafka and Elasticsearch, apt-get for Redis and mvn itself
//
// What mvn brings is pinned in downloads.lock and refused when its SHA-256 differs. Packages of apt are verified by apt's own signatures.
//
// # Users
//
// PostgreSQL and Elasticsearch refuse to run as root. When this process is root every service runs as $TIDEMARK_RUN_AS (nobody by
// default); the cache is then below /var/cache, because that user cannot look into root's home.
//
// # No orphans
//
// A stack's processes are forked by one OS thread that lives as long as the stack, each in its own process group with a parent-death
// signal (Linux), so they end with this process however it ends, SIGKILL included. Temporary folders that a killed process left behind are removed by
// the next start.
package localstack
