FROM scratch
RUN --device=vendor.com/class=one true
