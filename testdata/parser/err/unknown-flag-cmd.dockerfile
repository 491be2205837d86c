FROM a
CMD --x y
USER --x y
ENV --x a=b
EXPOSE --x 80
VOLUME --x /v
ONBUILD --x RUN y
SHELL --x ["y"]
