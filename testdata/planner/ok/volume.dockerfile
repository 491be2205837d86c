FROM busybox
VOLUME /data $HOME/x
VOLUME ["/a b", "/c"]
