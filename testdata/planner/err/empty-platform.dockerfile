FROM --platform=$TARGETPLATFROM busybox
