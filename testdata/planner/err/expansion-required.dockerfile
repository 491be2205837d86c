ARG A=${B:?is needed}
FROM busybox
