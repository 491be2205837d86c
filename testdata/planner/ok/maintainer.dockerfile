FROM busybox
MAINTAINER Somebody <somebody@example.org>
